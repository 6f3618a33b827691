"""Decision thresholds: the choice of one, and ROC curves over all of them.

A threshold is chosen on the validation split and applied elsewhere, never chosen on the test split:
:func:`choose_thresholds` sees the scores and labels of one split, and evaluation takes its result
as plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colipri.evaluation.bootstrap import patient_weights

_GRID_POINTS = 101


def choose_thresholds(
    scores: np.ndarray, labels: np.ndarray, finding_names: Sequence[str]
) -> dict[str, float | None]:
    """Choose the threshold of maximum F1 for every finding.

    Args:
        scores: (n, F).
        labels: (n, F) of 0, 1 and NaN (unknown: left out for that finding).
        finding_names: F names.

    Returns:
        Threshold per finding (positive means score >= threshold), None where only one class is
        known, because no threshold can be judged there.
    """
    chosen: dict[str, float | None] = {}
    for index, name in enumerate(finding_names):
        known = np.isfinite(labels[:, index])
        chosen[name] = _maximum_f1(scores[known, index], labels[known, index].astype(int))
    return chosen


def _maximum_f1(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Middle of the gap below the best score; of several equal optima the highest.

    The middle of the gap gives the same decisions here and is the less arbitrary cut for new
    cases; the highest optimum raises the fewest alarms.
    """
    if len(set(labels.tolist())) < 2:
        return None
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last pair belongs to no threshold
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = float(thresholds[np.flatnonzero(f1 >= f1.max() - 1e-12)[-1]])
    below = scores[scores < best]
    return float((best + below.max()) / 2) if len(below) else best


@dataclass(frozen=True)
class RocCurve:
    """Corners of the curve, and the band of sensitivities at every false positive rate.

    Attributes:
        from sklearn.metrics import roc_curve

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
    """Compute the ROC curve of one finding.

    Args:
        labels: (n,) of 0, 1 and NaN (left out).
        scores: (n,).
        patients: n.
        num_resamples: Fewer than for numbers are enough for a drawing; 0 for no band.
        seed: Of the resamples.

    Returns:
        None where only one class is known.
    """
    known = np.isfinite(labels)
    truth, score = labels[known].astype(int), scores[known]
    if len(set(truth.tolist())) < 2:
        return None
    from sklearn.metrics import roc_curve

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
    """Sensitivities on the grid, one array per resample that holds both classes."""
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
