"""Make the small scans of this package from the originals (run by hand, results are committed).

    python -m colipri.dataset_conversion.semi_synthetic_chest.make_scans FOLDER_WITH_ORIGINALS

Each scan is turned to LPS, resampled to voxels of at least 3 mm, cropped to the body, segmented,
cleaned of marked lesions and wall calcification, and written as int16 with a label map
(1 left lung, 2 right lung, 3 rest of the chest cavity, 4 rest of the body).
"""

from __future__ import annotations

import argparse
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from colipri.common.atomic import atomic_path
from colipri.dataset_conversion.semi_synthetic_chest import segmentation
from colipri.dataset_conversion.semi_synthetic_chest.segmentation import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Mask,
    chest_cavity,
)
from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    BODY,
    CAVITY,
    SCANS_FOLDER,
    read_source_list,
)

logger = logging.getLogger(__name__)

_VOXEL_MM = 3.0
_MARGIN_MM = 9.0  # air kept around the body
_AORTA_RADIUS_MM = 20.0
Array = NDArray[np.float32]
Spacing = tuple[float, float, float]

_REPAIR_MARGIN_MM = 7.0  # spiculae and partial volume around the readers' contour
_CALCIUM_ABOVE_TISSUE_HU = 55.0


def make_scan(entry: dict[str, Any], originals: Path, target: Path) -> None:
    """Write ``<name>.nii.gz`` and ``<name>_anatomy.nii.gz`` for one source.

    Args:
        entry: of the list of sources.
        originals: folder of the original scans.
        target: folder to write to.
    """
    image = _read(originals / entry["original"], entry.get("corrected_spacing"))
    grid = _resample(image, None)
    hu = np.clip(sitk.GetArrayFromImage(grid), -1024, 2500).astype(np.float32)
    spacing = tuple(grid.GetSpacing()[::-1])
    labels = segmentation.lung_masks(hu, spacing)
    if "lesion" in entry:
        mask = _resample(_read(originals / entry["lesion"], None), grid)
        lesion = sitk.GetArrayFromImage(mask) > 0.3
        hu, labels = remove_lesion(hu, labels, lesion, spacing)
    heart, vessels = _heart_and_aorta(entry, labels.shape, spacing)
    tissue = float(np.median(hu[heart & (hu > 0) & (hu < 250)]))
    regions = (heart | vessels) & (labels == segmentation.BODY)
    hu = remove_calcification(hu, regions, spacing, tissue, seed=int(entry["number"]))
    anatomy = labels.copy()
    anatomy[labels == segmentation.BODY] = BODY
    anatomy[segmentation.chest_cavity(labels) & (labels == segmentation.BODY)] = CAVITY
    _write(np.rint(hu).astype(np.int16), anatomy, grid, target, entry["name"])


def _read(path: Path, corrected_spacing: list[float] | None) -> Any:
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    if corrected_spacing is not None:
        image.SetSpacing(corrected_spacing)
    return image


def _resample(image: Any, grid: Any | None) -> Any:
    """To voxels of at least 3 mm, low-pass filtered first; or onto ``grid`` if it is given.

    The new origin puts the outer corner of the whole volume at (0, 0, 0).
    """
    image = sitk.Cast(image, sitk.sitkFloat32)
    image.SetDirection(np.eye(3).ravel().tolist())
    old = image.GetSpacing()
    image.SetOrigin([s / 2 for s in old])
    if grid is not None:
        return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    new = [max(_VOXEL_MM, s) for s in old]
    if any(n > o for n, o in zip(new, old, strict=True)):
        sigmas = [0.4 * n if n > o else 0.01 for n, o in zip(new, old, strict=True)]
        image = sitk.SmoothingRecursiveGaussian(image, sigmas)
    size = [int(n * o / w) for n, o, w in zip(image.GetSize(), old, new, strict=True)]
    origin = [w / 2 for w in new]
    direction = image.GetDirection()
    linear = sitk.sitkLinear
    return sitk.Resample(image, size, sitk.Transform(), linear, origin, new, direction, -1000.0)


def _heart_and_aorta(
    entry: dict[str, Any], shape: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    z, y, x = (
        (np.arange(n) + 0.5).reshape([-1 if a == axis else 1 for a in range(3)]) * spacing[axis]
        for axis, n in enumerate(shape)
    )
    (cx, cy, cz), (rx, ry, rz) = entry["heart"]
    radius = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
    seeds = np.ones(shape, bool)
    points = np.asarray(entry["aorta"], float)
    for start, end in pairwise(points):
        for t in np.linspace(0, 1, 12):
            px, py, pz = start + t * (end - start)
            index = (int(pz / spacing[0]), int(py / spacing[1]), int(px / spacing[2]))
            seeds[index] = False
    aorta = ndimage.distance_transform_edt(seeds, sampling=spacing) < _AORTA_RADIUS_MM
    return radius < 1.3**2, aorta


def _write(
    hu: NDArray[np.int16], anatomy: NDArray[np.uint8], grid: Any, target: Path, name: str
) -> None:
    spacing = grid.GetSpacing()[::-1]
    body = np.argwhere(anatomy > 0)
    margin = [int(_MARGIN_MM / s) for s in spacing]
    low = [max(0, int(b) - m) for b, m in zip(body.min(0), margin, strict=True)]
    high = [min(n, int(b) + m + 1) for b, m, n in zip(body.max(0), margin, hu.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    origin = [o + a * s for o, a, s in zip(grid.GetOrigin()[::-1], low, spacing, strict=True)]
    for suffix, array in (("", hu), ("_anatomy", anatomy)):
        image = sitk.GetImageFromArray(array[box])
        image.SetSpacing(grid.GetSpacing())
        image.SetOrigin(origin[::-1])
        with atomic_path(target / f"{name}{suffix}.nii.gz") as path:
            sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=9)
    logger.info("%s: %s voxels of %s mm (z, y, x)", name, hu[box].shape, spacing)


def main() -> None:
    """Make all scans, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("originals", type=Path, help="folder that holds the original scans")
    parser.add_argument("--only", nargs="+", default=None, help="names from sources.json")
    parser.add_argument("-o", type=Path, default=SCANS_FOLDER, help="where to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for entry in read_source_list():
        if arguments.only is None or entry["name"] in arguments.only:
            make_scan(entry, arguments.originals, arguments.o)


if __name__ == "__main__":
    main()


def remove_lesion(
    hu: Array, labels: NDArray[np.uint8], lesion: Mask, spacing: Spacing
) -> tuple[Array, NDArray[np.uint8]]:
    """Replace a lesion by the nearest piece of ordinary lung of the same side.

    The piece is the same shape shifted by a whole number of voxels; the seam is blended over
    about 5 mm. Where the lesion touched the chest wall, lung is restored up to the wall.

    Args:
        hu: (Z, Y, X) HU.
        labels: (Z, Y, X) anatomy.
        lesion: (Z, Y, X) bool.
        spacing: mm per voxel.

    Raises:
        ValueError: no healthy piece of that shape exists on that side.
    """
    grown = ndimage.distance_transform_edt(~lesion, sampling=spacing) <= _REPAIR_MARGIN_MM
    side = _side_of(lesion, labels)
    lung = labels == side
    inside = chest_cavity(labels) & grown & ~_other_tissue(hu, labels, lesion, side, spacing)
    target = inside & (lung | grown)
    healthy = ndimage.distance_transform_edt(lung & ~grown, sampling=spacing) > 2.0
    shift = _nearest_shift(target, healthy, spacing)
    donor = np.roll(hu, shift, axis=(0, 1, 2))
    depth = ndimage.distance_transform_edt(np.pad(target, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    weight = np.clip(depth / 5.0, 0, 1)
    weight[lesion & target] = 1.0
    weight = np.where(target, np.maximum(ndimage.gaussian_filter(weight, 0.6), weight), 0)
    repaired = (hu + weight * (donor - hu)).astype(np.float32)
    labels = labels.copy()
    labels[target] = side
    return repaired, labels


def remove_calcification(
    hu: Array, regions: Mask, spacing: Spacing, tissue_hu: float, seed: int
) -> Array:
    """Replace bright specks in heart and aorta by tissue with the scan's noise.

    Bone (large bright objects, such as the spine beside the aorta) stays.

    Args:
        hu: (Z, Y, X) HU.
        regions: (Z, Y, X) bool, heart and aorta.
        spacing: mm per voxel.
        tissue_hu: HU of the tissue.
        seed: of the noise.
    """
    threshold = tissue_hu + _CALCIUM_ABOVE_TISSUE_HU
    bright = hu > threshold
    components, _ = ndimage.label(hu > max(threshold, 180.0))
    sizes = np.bincount(components.ravel()) * float(np.prod(spacing))
    large = sizes > 15_000.0
    large[0] = False
    bone = ndimage.binary_dilation(large[components])
    specks = ndimage.binary_dilation(bright & regions & ~bone) & ~bone & (hu > tissue_hu)
    tissue = regions & ~specks & (np.abs(hu - tissue_hu) < 60)
    noise = float(np.std(hu[tissue]))
    rng = np.random.default_rng(seed)
    repaired = hu.copy()
    repaired[specks] = tissue_hu + rng.normal(0, noise * 0.7, int(specks.sum()))
    return repaired


def _side_of(lesion: Mask, labels: NDArray[np.uint8]) -> int:
    near = labels[ndimage.binary_dilation(lesion, iterations=4)]
    left, right = int((near == LEFT_LUNG).sum()), int((near == RIGHT_LUNG).sum())
    return LEFT_LUNG if left > right else RIGHT_LUNG


def _other_tissue(
    hu: Array, labels: NDArray[np.uint8], lesion: Mask, side: int, spacing: Spacing
) -> Mask:
    """Soft tissue near the lesion that is not lesion: chest wall, diaphragm, mediastinum."""
    lung = labels == side
    near = ndimage.distance_transform_edt(~lesion, sampling=spacing) <= 4.0
    return (hu > -300) & ~near & ~lung


def _nearest_shift(target: Mask, healthy: Mask, spacing: Spacing) -> tuple[int, int, int]:
    points = np.argwhere(target)
    reach = [int(120 / s) for s in spacing]
    best: tuple[float, float, tuple[int, int, int]] | None = None
    for dz in range(-reach[0], reach[0] + 1, 2):
        for dy in range(-reach[1], reach[1] + 1, 2):
            for dx in range(-reach[2] // 2, reach[2] // 2 + 1, 2):
                moved = points - (dz, dy, dx)
                if (moved < 0).any() or (moved >= target.shape).any():
                    continue
                missing = 1 - float(healthy[tuple(moved.T)].mean())
                length = float(np.linalg.norm([dz * spacing[0], dy * spacing[1], dx * spacing[2]]))
                if best is None or (missing, length) < best[:2]:
                    best = (missing, length, (dz, dy, dx))
    if best is None or best[0] > 0.15:
        raise ValueError(f"no healthy lung of the lesion's shape (best: {best})")
    return best[2]
