"""Body size and voxel statistics of a scan: what a finding can be told from without an encoder.

A large body, a large heart and a bright lung show in a handful of numbers. A head on features that
does not beat a head on these numbers has learned nothing that needed a network.
"""

from __future__ import annotations

import math

import numpy as np

from colipri.inference.volume import Volume
from colipri.plans.plans import Configuration

_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_SHARES_ABOVE = (-900, -700, -500, -200, 0, 150, 300)  # HU
STATISTICS = (
    "extent_superior_mm",
    "extent_anterior_mm",
    "extent_right_mm",
    "body_volume_litres",
    "body_fraction",
    "mean",
    "standard_deviation",
    *(f"percentile_{percent}" for percent in _PERCENTILES),
    *(f"share_above_{value}" for value in _SHARES_ABOVE),
)


def volume_statistics(volume: Volume, configuration: Configuration) -> np.ndarray:
    """Measure a preprocessed volume.

    Args:
        volume: At the plan's spacing.
        configuration: Of the plan.

    Returns:
        (S,) float32, in the order of :data:`STATISTICS`: extents of the box around the body in mm,
        the volume of the tokens that hold body in litres and their share of the box, and mean,
        standard deviation, percentiles and shares above fixed values of the first channel's voxels
        in those tokens (HU for CT).
    """
    spacing, patch = configuration.spacing, configuration.token_patch_size
    size = [math.ceil(n / step) * step for n, step in zip(volume.shape, patch, strict=True)]
    image, body = volume.crop((0, 0, 0), size)
    if not body.any():
        body = np.ones_like(body)
    inside = body
    for axis, step in enumerate(patch):
        inside = inside.repeat(step, axis=axis)
    inside = inside[tuple(map(slice, volume.shape))]
    voxels = image[0][tuple(map(slice, volume.shape))][inside].astype(np.float32)
    extents = [n * step for n, step in zip(volume.shape, spacing, strict=True)]
    litres = inside.sum() * math.prod(spacing) / 1e6
    values = [*extents, litres, inside.mean(), voxels.mean(), voxels.std()]
    values += np.percentile(voxels, _PERCENTILES).tolist()
    values += [float((voxels > value).mean()) for value in _SHARES_ABOVE]
    return np.asarray(values, dtype=np.float32)
