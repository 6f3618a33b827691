"""ROC curves with pointwise confidence bands over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colipri.evaluation.bootstrap import patient_weights

if TYPE_CHECKING:
    import numpy as np

_GRID_POINTS = 101


@dataclass(frozen=True)
class RocCurve:
    """Corners of the curve, and the band of sensitivities at every false positive rate.

    Attributes:
        false_positive_rate, sensitivity: Corners, from (0, 0) to (1, 1).
        grid: False positive rates of the band, 101 of them.
        low, high: 2.5 and 97.5 percentiles of the sensitivity there (empty: one patient only).
    """

    false_positive_rate: np.ndarray
    sensitivity: np.ndarray
    grid: np.ndarray
    low: np.ndarray
    high: np.ndarray


def roc_with_band(
    labels: np.ndarray,
    scores: np.ndarray,
    patients: Sequence[str],
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> RocCurve | None:
    """The ROC curve of one finding.

    Args:
        labels: (n,) of 0, 1 and NaN (left out).
        scores: (n,).
        patients: n.
        num_resamples: Fewer than for numbers are enough for a drawing.

    Returns:
        None where only one class is known.
    """
    import numpy as np
    from sklearn.metrics import roc_curve

    known = np.isfinite(labels)
    truth, score = labels[known].astype(int), scores[known]
    if len(set(truth.tolist())) < 2:
        return None
    false_positive_rate, sensitivity, _ = roc_curve(truth, score, drop_intermediate=True)
    grid = np.linspace(0, 1, _GRID_POINTS)
    people = [patient for patient, keep in zip(patients, known, strict=True) if keep]
    curves = [] if len(set(people)) < 2 else _resampled(truth, score, people, num_resamples, seed)
    low = high = np.empty(0)
    if len(curves) > num_resamples / 2:
        low, high = np.quantile(np.array(curves), [0.025, 0.975], axis=0)
    return RocCurve(false_positive_rate, sensitivity, grid, low, high)


def _resampled(
    truth: np.ndarray, score: np.ndarray, patients: list[str], num_resamples: int, seed: int
) -> list[np.ndarray]:
    """Sensitivities on the grid, one array a resample that holds both classes."""
    import numpy as np

    order = np.argsort(-score, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(score[order])), len(order) - 1]
    weights = patient_weights(patients, num_resamples, seed)[:, order].astype(float)
    positive = truth[order].astype(bool)
    hits = np.cumsum(weights * positive, axis=1)[:, ends]
    alarms = np.cumsum(weights * ~positive, axis=1)[:, ends]
    grid = np.linspace(0, 1, _GRID_POINTS)
    return [
        np.interp(grid, np.r_[0, alarm / alarm[-1]], np.r_[0, hit / hit[-1]])
        for hit, alarm in zip(hits, alarms, strict=True)
        if hit[-1] > 0 and alarm[-1] > 0
    ]
