"""Where each voxel of a new study comes from in its source scan.

A study is one source scan under a random but smooth change of shape: size, proportions, posture,
thickness of the chest wall, elastic deformation, size of the heart, height of the diaphragm, shift
of the mediastinum. The mapping goes from the new grid to the source (so that sampling needs no
inverse). It is computed on a coarse grid of about 12 mm, where it is smooth, and interpolated.

Everything is (z, y, x) in mm; z grows to the head, y to the back, x to the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from colipri.dataset_conversion.semi_synthetic_chest.people import Blend, lung_box, towards
from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Source,
    load_source,
)

_COARSE_MM = 12.0
_HEART_REACH = 2.3  # in heart radii: beyond this the surroundings stay where they are
Point = NDArray[np.float64]


def source_coordinates(
    source: Source, shape: Shape, view: View, blend: Blend | None = None
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Return the source position (mm) of the coarse grid's points, and the shape of the fine grid.

    Args:
        source: scan and anatomy.
        shape: of the new chest.
        view: spacing and field of view of the new study.
        blend: the person on the way to whose shape the chest is.

    Returns:
        (3, n0, n1, n2) float64 whose corners are the centres of the corner voxels of the fine grid.
    """
    centre, half = lung_box(source)
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
    if blend is not None:
        points = towards(points, source, load_source(blend.second), blend.shape)
    points = points + inner_movements(points, source, shape, half)
    return points, (fine[0], fine[1], fine[2])


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


def elastic(points: Point, shape: Shape, half: Point) -> Point:
    """Interpolate (cubic) movements in mm from control points that span 1.5 times the lungs' box.

    Args:
        points: (3, n0, n1, n2) positions relative to the centre of the lungs, mm.
        shape: with the control points.
        half: half extent of the lungs' box, mm.
    """
    position = points / (1.5 * half.reshape(3, 1, 1, 1)) * 2 + 2
    moved = [map_coordinates(e, position, order=3, mode="nearest") for e in shape.elastic]
    return np.stack(moved)


def rotation(angles: tuple[float, float, float]) -> Point:
    """(3, 3) matrix of three turns (degrees) about the axes."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def thin_wall(points: Point, half: Point, wall: float) -> Point:
    """Stretch what lies outside an ellipse around the lungs (in plane) by ``wall``.

    Args:
        points: (3, n0, n1, n2) positions relative to the centre of the lungs, mm.
        half: half extent of the lungs' box, mm.
        wall: thickness of the chest wall relative to the source's.
    """
    radius = np.hypot(points[1] / half[1], points[2] / half[2])
    factor = np.where(radius > 1, (1 + (radius - 1) / wall) / np.maximum(radius, 1), 1)
    out = points.copy()
    out[1:] *= factor
    return out


def inner_movements(points: Point, source: Source, shape: Shape, half: Point) -> Point:
    """Return movements (mm) of heart, diaphragm and mediastinum; chest wall and spine stay.

    Args:
        points: (3, n0, n1, n2) positions in the source, mm.
        source: scan and anatomy.
        shape: of the new chest.
        half: half extent of the lungs' box, mm.
    """
    index = (points - source.origin.reshape(3, 1, 1, 1)) / source.spacing.reshape(3, 1, 1, 1)
    wall = map_coordinates(source.wall_mm, index, order=1, mode="nearest")
    inside = np.clip(wall / 22.0, 0, 1)
    move = _heart_growth(points, source, shape.heart * source.heart_normal_scale)
    move[2] -= shape.shift
    base = (points[0] - source.origin[0] - _base(source)) / (2 * half[0])
    lift = np.clip(1.1 - base, 0, 1)  # full at the diaphragm, none at the apex
    middle = source.heart_centre[2]
    left = 1 / (1 + np.exp(-(points[2] - middle) / 15))
    move[0] -= (shape.diaphragm_up[0] * (1 - left) + shape.diaphragm_up[1] * left) * lift
    abdomen = np.clip(1 + base / 0.15, 0, 1)  # fades out below the lungs
    weight = np.maximum(inside, 0)
    vertical = np.maximum(inside, np.clip((0.25 - base) / 0.25, 0, 1) * 0.9) * abdomen
    return np.stack([move[0] * vertical, move[1] * weight, move[2] * weight])


def _base(source: Source) -> float:
    lungs = (source.anatomy == LEFT_LUNG) | (source.anatomy == RIGHT_LUNG)
    return float(np.flatnonzero(lungs.any((1, 2)))[0] * source.spacing[0])


def _heart_growth(points: Point, source: Source, factor: float) -> Point:
    """Inside ``factor`` radii the heart is magnified; the surroundings make room."""
    offset = points - source.heart_centre.reshape(3, 1, 1, 1)
    radius = np.sqrt(((offset / source.heart_axes.reshape(3, 1, 1, 1)) ** 2).sum(0)) + 1e-6
    beyond = 1 + (radius - factor) * (_HEART_REACH - 1) / (_HEART_REACH - factor)
    origin = np.where(
        radius < factor, radius / factor, np.where(radius < _HEART_REACH, beyond, radius)
    )
    return offset * (origin / radius - 1)


@dataclass(frozen=True)
class Shape:
    """The change of shape of one subject, and what its findings do to it.

    scale: size per axis. angles: rotation in degrees about z, y, x. wall: thickness of the chest
    wall relative to the source's. heart: size of the heart relative to an ordinary one.
    diaphragm_up: mm by which (right, left) diaphragm is lifted. shift: mm by which the mediastinum
    moves to the patient's left. elastic: (3, 5, 5, 5) mm at control points over the chest.
    """

    scale: tuple[float, float, float]
    angles: tuple[float, float, float]
    wall: float
    heart: float
    elastic: NDArray[np.float64] = field(repr=False)
    diaphragm_up: tuple[float, float] = (0.0, 0.0)
    shift: float = 0.0


@dataclass(frozen=True)
class View:
    """Field of view: margins in mm around the body (y, x), and below and above the lungs."""

    spacing: tuple[float, float, float]
    margin_y: tuple[float, float]
    margin_x: tuple[float, float]
    below: float
    above: float


def draw_shape(rng: np.random.Generator) -> Shape:
    """An ordinary subject; findings change it further with ``dataclasses.replace``."""
    size = float(np.exp(rng.normal(0, 0.06)))
    scale = size * np.exp(rng.normal(0, 0.045, 3))
    return Shape(
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        angles=(float(rng.normal(0, 3)), float(rng.normal(0, 2)), float(rng.normal(0, 3))),
        wall=float(np.exp(rng.normal(0, 0.25))),
        heart=float(rng.uniform(0.9, 1.04)),
        elastic=rng.normal(0, 5.0, (3, 5, 5, 5)),
        shift=float(rng.normal(0, 2.5)),
    )


def draw_view(rng: np.random.Generator, spacing_mm: float) -> View:
    """A field of view; most hold the whole chest, some cut the skin or the upper abdomen."""
    spacing = spacing_mm * np.array([rng.uniform(0.92, 1.1), *[rng.uniform(0.92, 1.06)] * 2])
    side = rng.uniform(-14, 10, 4)
    return View(
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        margin_y=(float(side[0]), float(side[1])),
        margin_x=(float(side[2]), float(side[3])),
        below=float(rng.uniform(6, 45)),
        above=float(rng.uniform(6, 35)),
    )
