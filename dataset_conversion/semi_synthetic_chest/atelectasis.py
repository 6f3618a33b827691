"""Atelectasis: a collapsed base of a lower lobe, with loss of volume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.brushes import (
    edge_width,
    random_side,
    size_word,
    soft_step,
)
from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest
from colipri.dataset_conversion.semi_synthetic_chest.shapes import Shape
from colipri.dataset_conversion.semi_synthetic_chest.sources import Array

Details = dict[str, Any]


def draw_atelectasis(rng: np.random.Generator) -> Details:
    """Collapse of the base of a lower lobe: side, thickness (mm), lift of the diaphragm (mm)."""
    thickness = float(rng.uniform(22, 44))
    return {
        "side": random_side(rng),
        "thickness_mm": thickness,
        "lift_mm": thickness * 0.7,
        "size": size_word(thickness, (29, 37)),
    }


def deform_atelectasis(shape: Shape, details: Details) -> Shape:
    """Volume loss: the diaphragm rises and the mediastinum moves to the side of the collapse."""
    right, left = shape.diaphragm_up
    if details["side"] == "right":
        lifted, shift = (right + details["lift_mm"], left), shape.shift - 5
    else:
        lifted, shift = (right, left + details["lift_mm"]), shape.shift + 5
    return replace(shape, diaphragm_up=lifted, shift=shift)


def insert_atelectasis(chest: Chest, details: Details, label: int) -> Details:
    """A wedge of dense lung beside the spine, and bands of it above the diaphragm."""
    side = details["side"]
    lung = chest.lung[side]
    low, high = chest.boxes[side]
    medial = high[2] if side == "right" else low[2]  # x grows to the patient's left
    across = np.abs(chest.axes_mm[2] - np.float32(medial)) / np.float32(high[2] - low[2])
    # The collapsed lobe lies as a triangle against spine and diaphragm.
    depth = details["thickness_mm"] * (1.25 - 1.6 * across)
    depth = depth * np.clip((0.5 - chest.height(side)) / 0.3, 0, 1)
    from_back = (1 - chest.backness(side)) * np.float32(high[1] - low[1])
    ragged = 2.5 * chest.noise(18.0)
    wedge = soft_step(2.2 * depth - from_back + ragged, 1.5 * edge_width(chest)) * (depth > 1)
    bands = _bands(chest, side)
    share = np.maximum(wedge, bands) * (lung > 0.02)
    chest.fill(share, float(chest.rng.uniform(40, 65)))
    chest.mark((share > 0.5) & (lung > 0.5), label)
    return details


def _bands(chest: Chest, side: str) -> Array:
    """Two thin round plates above the diaphragm, slightly tilted."""
    low, high = chest.boxes[side]
    total = np.zeros(chest.hu.shape, np.float32)
    for _ in range(2):
        level = low[0] + (high[0] - low[0]) * chest.rng.uniform(0.12, 0.32)
        tilt = chest.rng.normal(0, 0.35, 2)
        plane = (
            chest.axes_mm[0]
            - np.float32(level)
            + np.float32(tilt[0]) * (chest.axes_mm[1] - np.float32((low[1] + high[1]) / 2))
            + np.float32(tilt[1]) * (chest.axes_mm[2] - np.float32((low[2] + high[2]) / 2))
        )
        # A plate ends in a soft, round border: it is a sheet of collapsed lung, not a slab.
        place = chest.rng.uniform(0.35, 0.65, 2)
        across = (chest.axes_mm[2] - np.float32(low[2])) / np.float32(high[2] - low[2])
        radius = np.hypot(chest.backness(side) - place[0], across - place[1])
        inside = np.clip((0.34 - radius) / 0.1, 0, 1)
        total = np.maximum(total, soft_step(2.6 - np.abs(plane), edge_width(chest)) * inside)
    return np.asarray(total * (chest.pleura_mm < 45))
