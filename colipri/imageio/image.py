"""An image in memory: its values, where each voxel lies in the patient, and its orientation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibabel.orientations import (
    aff2axcodes,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

# The released COLIPRI package changed from SAR to RAS between versions without recording it in the
# checkpoint. Here plan, store and checkpoint all state the orientation, and it is checked.
DEFAULT_ORIENTATION = "SAR"
# A shear of half a degree shifts the end of a 400 mm scan by 3.5 mm.
TOLERATED_SHEAR_DEGREES = 0.5
_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True)
class MedicalImage:
    """A 3D image with one or more channels.

    Attributes:
        array: (C, A0, A1, A2) float32; HU for CT.
        spacing: mm per voxel along A0, A1, A2.
        orientation: where the array axes point, e.g. "SAR": superior, anterior, right.
        affine: 4 x 4, index (a0, a1, a2) -> RAS millimetres (x right, y anterior, z superior).
        properties: what the file states: original_shape, original_spacing, original_orientation
            (file axis order), dtype, files.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    orientation: str
    affine: np.ndarray
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageHeader:
    """What is known about an image file without reading its voxels.

    Attributes:
        shape: voxels per axis in file order (x, y, z), one per dimension of the file.
        spacing: mm, in the same order.
        orientation: where the file's axes point, e.g. "LPS"; "" if it is not three-dimensional.
        dtype: stored type, e.g. "int16".
        num_components: values per voxel (1 for a scalar image).
        affine: 4 x 4, file index (i, j, k) -> RAS mm; None if it is not three-dimensional.
        has_orientation: False if the file does not state its orientation (identity by default).
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    dtype: str
    num_components: int
    affine: np.ndarray | None
    has_orientation: bool = True

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.shape)


def orientation_of(affine: np.ndarray) -> str:
    """Codes of the directions that the array axes are closest to.

    Args:
        affine: 4 x 4, array index -> RAS mm.
    """
    return "".join(code or "?" for code in aff2axcodes(affine))


def shear_degrees(affine: np.ndarray) -> float:
    """By how much the voxel axes fail to be perpendicular to each other.

    Args:
        affine: 4 x 4, array index -> RAS mm, not singular.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs([axes[:, a] @ axes[:, b] for a, b in ((0, 1), (0, 2), (1, 2))])
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))).max())


def reorient(
    array: np.ndarray, affine: np.ndarray, target: str
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Flip and permute the three spatial axes until they point as ``target`` states.

    Args:
        array: (C, A0, A1, A2).
        affine: 4 x 4, array index -> RAS mm.
        target: three axis codes, e.g. "SAR".

    Returns:
        The array (a view where possible), its affine, and the spacing in mm.
    """
    if sorted(_AXIS[code] for code in target) != [0, 1, 2]:
        raise ValueError(f"'{target}' does not name three different axes")
    transform = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(target)))
    spatial_shape = array.shape[1:]
    new_affine = affine @ inv_ornt_aff(transform, spatial_shape)
    flipped = array
    for axis, direction in enumerate(transform[:, 1]):
        if direction < 0:
            flipped = np.flip(flipped, axis=axis + 1)
    source_of_new_axis = np.argsort(transform[:, 0])
    reordered = flipped.transpose(0, *(int(axis) + 1 for axis in source_of_new_axis))
    a, b, c = (float(np.linalg.norm(new_affine[:3, axis])) for axis in range(3))
    return reordered, new_affine, (a, b, c)
