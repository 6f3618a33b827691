"""How well a heat map fits a mask, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colipri.inference.heatmap import strongest_place

HIT_DICE = 0.1  # of the field's hit rate (ReXGroundingCT, arXiv 2507.22030)
_CANDIDATES = 60
_QUANTILES = (0.5, 0.999)


@dataclass(frozen=True)
class PlaceScores:
    """Of one finding in one scan, without a threshold.

    Attributes:
        pointing: True if the strongest voxel is inside the mask.
        near: True if it is at most one token away from it.
        chance: Share of the candidate voxels that are inside the mask.
        slice_error: mm along the body between the strongest slice and the middle of the mask.
        chance_slice_error: The mean of that over all slices that have candidates.
    """

    pointing: bool
    near: bool
    chance: float
    slice_error: float
    chance_slice_error: float


def place_scores(
    heat: np.ndarray, mask: np.ndarray, spacing: Sequence[float], token_mm: float
) -> PlaceScores:
    """Compare the strongest response with a mask.

    Args:
        heat: (S, A, R) values, NaN where no answer is possible (air, outside).
        mask: The same shape, bool, not empty.
        spacing: mm of a voxel.
        token_mm: Edge of a token, for ``near``.
    """
    place = strongest_place(heat)
    known = np.isfinite(heat)
    away = (np.argwhere(mask) - place) * np.asarray(spacing)  # mm, to every voxel of the mask
    slices = np.flatnonzero(known.any(axis=(1, 2)))
    profile = np.array([np.nanmax(heat[level]) for level in slices])
    middle = float(np.average(np.arange(len(mask)), weights=mask.sum(axis=(1, 2))))
    step = float(spacing[0])
    return PlaceScores(
        bool(mask[place]),
        bool(np.sqrt((away**2).sum(axis=1).min()) <= token_mm),
        float((mask & known).sum() / known.sum()),
        abs(float(slices[profile.argmax()]) - middle) * step,
        float(np.abs(slices - middle).mean()) * step,
    )


def candidate_thresholds(heats: Sequence[np.ndarray]) -> np.ndarray:
    """Return the thresholds to try: quantiles of the values of some maps, ascending."""
    values = np.concatenate([heat[np.isfinite(heat)] for heat in heats])
    levels = 1 - np.geomspace(1 - _QUANTILES[0], 1 - _QUANTILES[1], _CANDIDATES)
    return np.unique(np.quantile(values, levels))


def dice_at(heat: np.ndarray, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the Dice of {heat >= threshold} and the mask, one per threshold.

    Args:
        heat: NaN where no answer is possible; those voxels are never predicted.
        mask: The same shape, bool; all of it counts, also where no answer is possible.
        thresholds: (T,) ascending.
    """
    known = np.isfinite(heat)
    values, truth = heat[known], mask[known]
    total = float(mask.sum())
    inside = np.sort(values[truth])
    everything = np.sort(values)
    hits = len(inside) - np.searchsorted(inside, thresholds, side="left")
    predicted = len(everything) - np.searchsorted(everything, thresholds, side="left")
    result: np.ndarray = 2 * hits / (predicted + total)
    return result
