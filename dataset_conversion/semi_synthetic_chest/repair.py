"""Take out of a real scan what would contradict the labels: marked lesions and wall calcification.

Arrays are (Z, Y, X), spacing is (z, y, x) in mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from colipri.dataset_conversion.semi_synthetic_chest.segmentation import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Mask,
    chest_cavity,
)

Array = NDArray[np.float32]
Spacing = tuple[float, float, float]

_MARGIN_MM = 7.0  # spiculae and partial volume around the readers' contour
_CALCIUM_ABOVE_TISSUE_HU = 55.0


def remove_lesion(
    hu: Array, labels: NDArray[np.uint8], lesion: Mask, spacing: Spacing
) -> tuple[Array, NDArray[np.uint8]]:
    """Replace a lesion by the nearest piece of ordinary lung of the same side.

    The piece is the same shape shifted by a whole number of voxels; the seam is blended over
    about 5 mm. Where the lesion touched the chest wall, lung is restored up to the wall.

    Raises:
        ValueError: no healthy piece of that shape exists on that side.
    """
    grown = ndimage.distance_transform_edt(~lesion, sampling=spacing) <= _MARGIN_MM
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
    """Replace bright specks in heart and aorta by tissue of ``tissue_hu`` with the scan's noise.

    Bone (large bright objects, such as the spine beside the aorta) stays.
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
