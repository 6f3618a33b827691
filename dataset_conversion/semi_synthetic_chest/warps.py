"""The parts of a change of shape: elastic, wall, heart, diaphragm, mediastinum; (z, y, x) mm."""

from __future__ import annotations

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.shapes import Point, Shape
from colipri.dataset_conversion.semi_synthetic_chest.sources import LEFT_LUNG, RIGHT_LUNG, Source

_HEART_REACH = 2.3  # in heart radii: beyond this the surroundings stay where they are


def elastic(points: Point, shape: Shape, half: Point) -> Point:
    """Cubic interpolation of the control points, which span 1.5 times the lungs' box."""
    from scipy.ndimage import map_coordinates

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
    """Stretch what lies outside an ellipse around the lungs (in plane) by ``wall``."""
    radius = np.hypot(points[1] / half[1], points[2] / half[2])
    factor = np.where(radius > 1, (1 + (radius - 1) / wall) / np.maximum(radius, 1), 1)
    out = points.copy()
    out[1:] *= factor
    return out


def inner_movements(points: Point, source: Source, shape: Shape, half: Point) -> Point:
    """Movement of heart, diaphragm and mediastinum; the chest wall and the spine stay."""
    from scipy.ndimage import map_coordinates

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
