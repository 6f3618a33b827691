"""The lobes of the lungs, by the usual course of the fissures in a box around each lung."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest
from colipri.dataset_conversion.semi_synthetic_chest.sources import Array

LOBES = {
    "right": ("right upper lobe", "right middle lobe", "right lower lobe"),
    "left": ("left upper lobe", "left lower lobe"),
}


def lobe_at(chest: Chest, side: str, position: NDArray[np.float64]) -> str:
    """The lobe that holds ``position`` (z, y, x mm), by the usual course of the fissures."""
    low, high = chest.boxes[side]
    height, back = (position[:2] - low[:2]) / (high[:2] - low[:2])
    if height < _oblique_fissure(back):
        return f"{side} lower lobe"
    if side == "right" and height < 0.45 and back < 0.62:
        return "right middle lobe"
    return f"{side} upper lobe"


def lobe_mask(chest: Chest, lobe: str) -> NDArray[np.bool_]:
    """Where the lobe would be in a box-shaped lung; multiply with the lung's mask. (Z, Y, 1)"""
    side = lobe.split()[0]
    height, back = chest.height(side), chest.backness(side)
    lower = height < _oblique_fissure(back)
    if lobe.endswith("lower lobe"):
        return np.asarray(lower)
    middle = (side == "right") & (height < 0.45) & (back < 0.62) & ~lower
    return np.asarray(middle if lobe.endswith("middle lobe") else ~lower & ~middle)


def _oblique_fissure(backness: Array | float) -> Array | float:
    """Height of the oblique fissure: from the diaphragm in front to T4 at the back."""
    return 0.02 + 0.7 * backness
