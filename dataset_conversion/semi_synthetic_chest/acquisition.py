"""What a scanner and its reconstruction do to a chest: kernel, noise, calibration, padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest

MINIMUM_HU, MAXIMUM_HU = -1024, 3071


@dataclass(frozen=True)
class Acquisition:
    """One reconstruction.

    sharpness: below 0 blurs (soft kernel), above 0 sharpens (lung kernel). noise_hu: added noise.
    slope, offset_hu: small errors of calibration. circle: outside of the field of view is cut.
    """

    sharpness: float
    noise_hu: float
    slope: float
    offset_hu: float
    circle: bool


def draw_acquisition(rng: np.random.Generator, wide: bool = False) -> Acquisition:
    """Draw a scanner.

    Args:
        rng: of the study.
        wide: softer and sharper kernels, more noise and calibration errors than the ordinary
            scanners of validation and test, so that training covers them.
    """
    spread = 1.8 if wide else 1.0
    return Acquisition(
        sharpness=float(rng.uniform(-0.5 * spread, 0.6 * spread)),
        noise_hu=float(rng.uniform(5, 28 * spread)),
        slope=float(rng.normal(1, 0.012 * spread)),
        offset_hu=float(rng.normal(0, 6 * spread)),
        circle=bool(rng.random() < 0.3),
    )


def acquire(chest: Chest, acquisition: Acquisition, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return the chest as stored: (Z, Y, X) int16 HU.

    Args:
        chest: to scan.
        acquisition: sharpness, noise, errors of calibration and cut circle.
        rng: of the noise.
    """
    hu = chest.hu
    smooth = ndimage.gaussian_filter(hu, 0.7)
    if acquisition.sharpness < 0:
        hu = hu + (smooth - hu) * -acquisition.sharpness
    else:
        hu = hu + (hu - smooth) * acquisition.sharpness
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    # Reconstruction correlates noise; dividing by what the blur removes keeps its size.
    noise = ndimage.gaussian_filter(noise, 0.6) / 0.33
    hu = hu + noise * np.float32(acquisition.noise_hu)
    hu = (hu + 1000) * np.float32(acquisition.slope) - 1000 + np.float32(acquisition.offset_hu)
    if acquisition.circle:
        hu = np.where(_circle(hu.shape), hu, MINIMUM_HU)
    return np.clip(np.rint(hu), MINIMUM_HU, MAXIMUM_HU).astype(np.int16)


def _circle(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(1, Y, X): the circle around the whole slice that touches its longer side."""
    y, x = np.ogrid[: shape[1], : shape[2]]
    radius = max(shape[1], shape[2]) / 2
    inside = (y - (shape[1] - 1) / 2) ** 2 + (x - (shape[2] - 1) / 2) ** 2 <= radius**2
    return np.asarray(inside[None])
