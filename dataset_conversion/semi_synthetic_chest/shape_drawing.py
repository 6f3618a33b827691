"""How findings are drawn: soft edges, ragged blobs, and words for sizes and sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.chest import SIDES, Chest
from colipri.dataset_conversion.semi_synthetic_chest.interpolation import Box
from colipri.dataset_conversion.semi_synthetic_chest.sources import Array


def soft_step(distance_mm: NDArray[np.floating[Any]], width_mm: float) -> Array:
    """1 where ``distance_mm`` is well above 0, 0 well below; a ramp of ``width_mm`` between.

    The ramp stands for partial volume: without it an inserted border would be sharper than
    anything that a scanner produces.
    """
    return np.clip(np.asarray(distance_mm, np.float32) / np.float32(width_mm) + 0.5, 0, 1)


def edge_width(chest: Chest) -> float:
    """Ramp width that matches the chest's voxels."""
    return float(np.mean(chest.spacing)) * 1.2


def blob(
    chest: Chest, centre: NDArray[np.float64], radius_mm: float, raggedness_mm: float
) -> tuple[Array, Box]:
    """Draw a ball with an irregular border: share of each voxel (0..1) within a window.

    Args:
        chest: gives the grid.
        centre: z, y, x in mm.
        radius_mm: mean radius.
        raggedness_mm: how far the border strays from the ball.
    """
    distance, box = chest.distance_to(centre, radius_mm + 3 * raggedness_mm)
    edge = radius_mm - distance
    if raggedness_mm > 0:
        shape = (distance.shape[0], distance.shape[1], distance.shape[2])
        edge = edge + raggedness_mm * chest.noise(max(radius_mm * 0.7, 8.0), shape)
    return soft_step(edge, edge_width(chest)), box


def size_word(value: float, limits: tuple[float, float]) -> str:
    """small, moderate or large."""
    return "small" if value < limits[0] else "moderate" if value < limits[1] else "large"


def random_side(rng: np.random.Generator) -> str:
    """right or left."""
    return SIDES[int(rng.integers(2))]


def random_sides(rng: np.random.Generator, both: float) -> list[str]:
    """One side, or both with probability ``both``."""
    return list(SIDES) if rng.random() < both else [random_side(rng)]


def side_word(sides: list[str]) -> str:
    """right, left or bilateral."""
    return "bilateral" if len(sides) == 2 else sides[0]
