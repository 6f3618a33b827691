"""Fluid and air between lung and chest wall; the patient is supine."""

from __future__ import annotations

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest, Details
from colipri.dataset_conversion.semi_synthetic_chest.shape_drawing import (
    edge_width,
    random_side,
    random_sides,
    side_word,
    size_word,
    soft_step,
)


def draw_effusion(rng: np.random.Generator) -> Details:
    """Sides, depth at the back (mm) and how far up the chest it reaches (share of the lung)."""
    sides = random_sides(rng, both=0.35)
    depth = float(rng.uniform(16, 60))
    return {
        "sides": sides,
        "side": side_word(sides),
        "depth_mm": depth,
        "top": 0.35 + depth / 110,
        "size": size_word(depth, (26, 44)),
    }


def insert_effusion(chest: Chest, details: Details, label: int) -> Details:
    """Insert fluid along the wall, deepest at the back of the base, and compressed lung.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    for side in details["sides"]:
        depth = details["depth_mm"] * float(chest.rng.uniform(0.85, 1.15))
        back = np.clip((chest.backness(side) - 0.3) / 0.6, 0, 1)
        low = np.clip((details["top"] - chest.height(side)) / 0.35, 0, 1)
        border = depth * back * low + 2.0 * chest.noise(40.0) * (low > 0)
        lung = chest.lung[side]
        edge = border - chest.wall_mm
        # Behind the water line the lung is compressed for about a centimetre.
        rim = soft_step(edge + 9, 12.0) * (lung > 0.3) * np.clip(border / 20, 0, 1)
        chest.fill(rim * 0.55 * (lung > 0.3), 35.0)
        share = soft_step(edge, edge_width(chest)) * (lung > 0.02) * (border > 2)
        chest.fill(share, float(chest.rng.uniform(3, 20)))
        chest.mark((share > 0.5) & (lung > 0.5), label)
        # For later findings, fluid does not count as lung.
        chest.lung[side] = lung * (1 - share)
    return details


def draw_pneumothorax(rng: np.random.Generator) -> Details:
    """Side and depth (mm) of the free air in front."""
    depth = float(rng.uniform(18, 48))
    return {"side": random_side(rng), "depth_mm": depth, "size": size_word(depth, (28, 38))}


def insert_pneumothorax(chest: Chest, details: Details, label: int) -> Details:
    """Insert air without vessels in front and at the apex; the lung behind it is denser.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    side = details["side"]
    lung = chest.lung[side]
    front = np.clip((0.75 - chest.backness(side)) / 0.6, 0, 1)
    apex = np.clip((chest.height(side) - 0.6) / 0.4, 0, 1)
    border = details["depth_mm"] * np.maximum(front, 0.8 * apex) + 1.5 * chest.noise(50.0)
    share = soft_step(border - chest.wall_mm, edge_width(chest)) * (lung > 0.02) * (border > 2)
    collapse = 40.0 + 3.0 * details["depth_mm"]
    rest = (lung > 0.5) & (share < 0.5)
    chest.hu[rest] = np.minimum(chest.hu[rest] + collapse * (chest.hu[rest] < -300), 200)
    chest.fill(share, float(chest.rng.uniform(-1000, -985)))
    chest.mark((share > 0.5) & (lung > 0.5), label)
    chest.lung[side] = lung * (1 - share)
    return details
