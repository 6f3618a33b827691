"""Checks of geometry: can a patient have this spacing, extent, orientation and axis order?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colipri.imageio.image import MedicalImage

# Micro-CT voxels are not smaller; slices of PET or old CT are not thicker.
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.05, 25.0
SMALLEST_EXTENT_MM, THIN_EXTENT_MM = 2.0, 25.0
WIDEST_FIELD_MM, LONGEST_SCAN_MM = 1000.0, 2500.0  # a bore is 800 mm, a table 2 m
NARROW_CHEST_MM, WIDE_CHEST_MM = 200.0, 650.0
TILT_DEGREES = 20.0
AT_FACE = 0.05  # a body that covers less of a face of the volume does not cross it
THROUGH_FACE = 0.2
LUNG_FRACTION = 0.1  # of the body's volume: there are lungs in view
SPINE_IN_FRONT = 0.025  # of the body's depth; it is -0.27 to -0.03 in 14 chest scans

Remark = tuple[str, str]  # code, what is wrong


@dataclass(frozen=True)
class BodyShape:
    """The body in a CT volume, by axis (Superior, Anterior, Right).

    Attributes:
        extent: mm.
        faces: fraction of the volume's first and last face that the body covers, 0 to 1.
        lungs: fraction of the body's volume with the density of lung.
        bone_offset: centre of bone minus centre of the body along the front-back axis, as a
            fraction of the body's depth; positive if bone lies in front. None without bone.
    """

    extent: tuple[float, float, float]
    faces: tuple[tuple[float, float], ...]
    lungs: float
    bone_offset: float | None

    def whole_along(self, axis: int) -> bool:
        """The body ends inside the volume on both sides."""
        return max(self.faces[axis]) < AT_FACE


def space_remarks(image: MedicalImage, origin: np.ndarray | None = None) -> list[Remark]:
    """Check an image's spacing, extent and tilt, from its geometry alone.

    Args:
        image: (S, A, R).
        origin: mm, of the file's first voxel; None for a DICOM series.
    """
    shape = image.array.shape[1:]
    extent = [count * step for count, step in zip(shape, image.spacing, strict=True)]
    size = f"{' x '.join(map(str, shape))} voxels of {_mm(image.spacing)}"
    remarks: list[Remark] = []
    if not all(SMALLEST_VOXEL_MM <= step <= LARGEST_VOXEL_MM for step in image.spacing):
        remarks.append(("spacing_absurd", f"spacing {_mm(image.spacing)}"))
    elif max(extent[1:]) > WIDEST_FIELD_MM or extent[0] > LONGEST_SCAN_MM:
        remarks.append(("extent_absurd", f"{size} are {_mm(extent)} (head-foot, depth, width)"))
    elif min(extent) < SMALLEST_EXTENT_MM:
        remarks.append(("extent_absurd", f"{size} are {_mm(extent)}"))
    elif min(extent) < THIN_EXTENT_MM:
        remarks.append(("extent_small", f"{size} are {_mm(extent)}"))
    if np.allclose(image.spacing, 1.0, atol=1e-6) and origin is not None and not origin.any():
        remarks.append(("spacing_default", "the spacing is 1 x 1 x 1 mm and the origin 0"))
    tilt = tilt_degrees(image.affine)
    if tilt > TILT_DEGREES:
        remarks.append(("orientation_oblique", f"an axis is tilted by {tilt:.0f} degrees"))
    return remarks


def tilt_degrees(affine: np.ndarray) -> float:
    """The largest angle between an array axis and the nearest axis of the patient."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(columns).max(axis=0), 0, 1))).max())


def body_shape(volume: np.ndarray, mask: np.ndarray, spacing: tuple[float, ...]) -> BodyShape:
    """Measure the body in a CT volume.

    Args:
        volume: (S, A, R) HU.
        mask: bool (S, A, R), the body including the air inside.
        spacing: mm along the same axes.
    """
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    extent = tuple(float((p[-1] - p[0] + 1) * s) for p, s in zip(places, spacing, strict=True))
    faces = tuple(
        (float(np.take(mask, 0, axis).mean()), float(np.take(mask, -1, axis).mean()))
        for axis in range(3)
    )
    inside = float(np.count_nonzero(mask))
    lungs = np.count_nonzero(mask & (volume < -600) & (volume > -980)) / inside
    bone = np.count_nonzero(mask & (volume > 400), axis=(0, 2))
    offset = None
    if bone.sum() > 0.001 * inside:
        rows = np.arange(mask.shape[1])
        body = np.count_nonzero(mask, axis=(0, 2))
        gap = (rows * bone).sum() / bone.sum() - (rows * body).sum() / body.sum()
        offset = float(gap / (places[1][-1] - places[1][0] + 1))
    return BodyShape((extent[0], extent[1], extent[2]), faces, lungs, offset)


def body_remarks(image: MedicalImage, body: BodyShape) -> list[Remark]:
    """Check the header against the size, position and posture of the chest."""
    remarks: list[Remark] = []
    whole = body.whole_along(1) and body.whole_along(2)
    if whole and body.lungs > LUNG_FRACTION:
        remarks += _size_remarks(image, body)
        if body.bone_offset is not None and body.bone_offset > SPINE_IN_FRONT:
            what = (
                f"the centre of bone lies {100 * body.bone_offset:.0f} % of the body's depth in "
                "front of the body's centre"
            )
            remarks.append(("front_back_swapped", what))
    if body.whole_along(0):
        for axis, name in ((1, "front to back"), (2, "right to left")):
            if min(body.faces[axis]) > THROUGH_FACE:
                what = f"the body is cut off {name} and ends inside the volume at head and foot"
                remarks.append(("axis_order", what))
    return remarks


def _size_remarks(image: MedicalImage, body: BodyShape) -> list[Remark]:
    depth, width = body.extent[1:]
    size = f"the chest is {width:.0f} mm wide and {depth:.0f} mm deep"
    if NARROW_CHEST_MM <= width <= WIDE_CHEST_MM:
        return []
    implied = _spacing_by_position(image)
    if width < NARROW_CHEST_MM and implied is not None:
        what = (
            f"{size}, and the image does not contain the scanner's axis; if it were centred on it, "
            f"voxels would be {implied:.2f} mm wide instead of {image.spacing[2]:.3g} mm"
        )
        return [("spacing_contradicts_position", what)]
    return [("body_size_unusual", size)]


def _spacing_by_position(image: MedicalImage) -> float | None:
    """Right-left spacing that would put the scanner's axis in the middle of the image.

    Scanners measure x from their axis, and patients lie on it. A reconstruction of a whole chest
    that does not even contain the axis has lost its spacing but kept its origin.
    None if the axis is in the image, or the origin was set to 0.
    """
    count = image.array.shape[3]
    last = np.array([*(np.array(image.array.shape[1:]) - 1), 1.0])
    ends = float(image.affine[0, 3]), float((image.affine @ last)[0])
    field = count * image.spacing[2]
    if min(map(abs, ends)) < 1.0 or abs(sum(ends) / 2) <= 0.6 * field:
        return None
    return 2 * max(map(abs, ends)) / count


def _mm(values: tuple[float, ...] | list[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values) + " mm"
