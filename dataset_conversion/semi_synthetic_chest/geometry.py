"""Where each voxel of a new study comes from in its source scan.

A study is one source scan under a random but smooth change of shape: size, proportions, posture,
thickness of the chest wall, elastic deformation, size of the heart, height of the diaphragm, shift
of the mediastinum. The mapping goes from the new grid to the source (so that sampling needs no
inverse). It is computed on a coarse grid of about 12 mm, where it is smooth, and interpolated.

Everything is (z, y, x) in mm; z grows to the head, y to the back, x to the patient's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.shapes import Point, Shape, View
from colipri.dataset_conversion.semi_synthetic_chest.sources import LEFT_LUNG, RIGHT_LUNG, Source
from colipri.dataset_conversion.semi_synthetic_chest.warps import (
    elastic,
    inner_movements,
    rotation,
    thin_wall,
)

_COARSE_MM = 12.0


def source_coordinates(
    source: Source, shape: Shape, view: View
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Source position (mm) of the coarse grid's points, and the shape of the fine grid.

    Returns:
        (3, n0, n1, n2) float64 whose corners are the centres of the corner voxels of the fine grid.
    """
    centre, half = _lung_box(source)
    low, high = _field_of_view(source, shape, view, centre, half)
    fine = tuple(round((h - lo) / s) for lo, h, s in zip(low, high, view.spacing, strict=True))
    ends = [lo + (n - 1) * s for lo, n, s in zip(low, fine, view.spacing, strict=True)]
    counts = [
        max(4, int(np.ceil((e - lo) / _COARSE_MM)) + 1) for lo, e in zip(low, ends, strict=True)
    ]
    axes = [np.linspace(lo, e, n) for lo, e, n in zip(low, ends, counts, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    points = points + elastic(points, shape, half * np.asarray(shape.scale))
    points = np.tensordot(rotation(shape.angles), points, axes=1)
    points = points / np.asarray(shape.scale).reshape(3, 1, 1, 1)
    points = thin_wall(points, half, shape.wall) + centre.reshape(3, 1, 1, 1)
    points = points + inner_movements(points, source, shape, half)
    return points, (fine[0], fine[1], fine[2])


def _lung_box(source: Source) -> tuple[Point, Point]:
    lungs = (source.anatomy == LEFT_LUNG) | (source.anatomy == RIGHT_LUNG)
    index = [np.flatnonzero(lungs.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    low = np.array([i[0] for i in index]) * source.spacing + source.origin
    high = np.array([i[-1] for i in index]) * source.spacing + source.origin
    return (low + high) / 2, (high - low) / 2


def _field_of_view(
    source: Source, shape: Shape, view: View, centre: Point, half: Point
) -> tuple[Point, Point]:
    """Corners of the new volume (mm from the middle of the lungs)."""
    scale = np.asarray(shape.scale)
    body = source.anatomy > 0
    top = int((centre[0] + half[0] * 0.6 - source.origin[0]) / source.spacing[0])
    body = body[: top + 1]  # arms and shoulders do not widen the field of view
    low, high = np.empty(3), np.empty(3)
    extent = np.array(source.hu.shape) * source.spacing
    first, last = source.origin - centre, source.origin + extent - source.spacing - centre
    low[0] = max(first[0], -half[0] - view.below) * scale[0]
    high[0] = min(last[0], half[0] + view.above) * scale[0]
    for axis, margin in ((1, view.margin_y), (2, view.margin_x)):
        other = tuple(a for a in range(3) if a != axis)
        index = np.flatnonzero(body.any(other))
        ends = index[[0, -1]] * source.spacing[axis] + source.origin[axis] - centre[axis]
        outside = (np.abs(ends) / half[axis] - 1).clip(0) * shape.wall + 1
        ends = np.sign(ends) * np.minimum(np.abs(ends), half[axis] * outside) * scale[axis]
        low[axis], high[axis] = ends[0] - margin[0], ends[1] + margin[1]
    return low, high
