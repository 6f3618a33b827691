"""Confidence intervals by resampling patients, not scans.

Scans of one patient (reconstructions, follow-ups) are not independent; resampling scans would make
every interval too narrow. A resample draws as many patients as there are, with replacement, and
takes all scans of a patient as often as the patient was drawn. A resample is therefore a vector of
integer weights, one per scan, so that all resamples are evaluated together.

Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError

NUM_RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 250  # resamples evaluated at once: keeps (chunk, scans) arrays in the processor's cache


def patient_weights(
    patients: Sequence[str], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return how often each scan is taken in each resample.

    Args:
        patients: The patient of every scan, n entries.
        num_resamples: R.
        seed: The same seed gives the same resamples, so that two models are compared on the same.

    Returns:
        (R, n) uint16; all scans of a patient have the same entry, and the entries of the distinct
        patients sum to the number of patients.
    """
    distinct, patient_of_scan = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = len(distinct)
    if count == 0:
        raise ColipriError("a bootstrap needs at least one patient")
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=num_resamples)
    return drawn.astype(np.uint16)[:, patient_of_scan]


def weight_chunks(weights: np.ndarray) -> list[np.ndarray]:
    """Return ``weights`` (R, n) in float64 pieces of at most 250 resamples."""
    return [
        weights[start : start + _CHUNK].astype(float) for start in range(0, len(weights), _CHUNK)
    ]


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the central ``level`` of the resampled values.

    Args:
        values: (R,), NaN where the metric was undefined in a resample (one class only).

    Returns:
        (low, high), or None where the metric was undefined in half of the resamples or more: an
        interval from the rest would be a statement about lucky draws.
    """
    defined = values[np.isfinite(values)]
    if len(defined) == 0 or 2 * len(defined) <= len(values):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def extreme_interval(value: float, trials: int, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the Clopper-Pearson interval of a rate of 0 or 1, where resampling gives a single
    point.

    Every resample of cases that are all right is all right, so the bootstrap would claim certainty
    from three patients. With n independent trials that all succeed, the exact interval starts at
    (alpha / 2)^(1 / n) (Clopper and Pearson, Biometrika 1934).

    Args:
        value: Rate of successes.
        trials: Independent trials: patients, not scans.
        level: Of the interval.

    Returns:
        (low, high), or None for a rate between 0 and 1, or without trials.
    """
    if value not in (0.0, 1.0) or trials < 1:
        return None
    bound = ((1 - level) / 2) ** (1 / trials)
    return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)


def estimate(value: float | None, resampled: np.ndarray | None, trials: int = 0) -> dict[str, Any]:
    """Return ``{"value", "low", "high"}`` with null for what is undefined or was not resampled.

    Args:
        value: The metric on all cases.
        resampled: (R,) the metric on every resample.
        trials: For a metric that is a rate: the number of patients it is a rate of. If all
            resamples agree, the interval is that of :func:`extreme_interval` or null, never a
            point.
    """
    interval = None if value is None or resampled is None else percentile_interval(resampled)
    if value is not None and interval is not None and interval[0] == interval[1]:
        interval = extreme_interval(value, trials)
    low, high = interval if interval is not None else (None, None)
    return {"value": value, "low": low, "high": high}


def paired_difference(
    first: float | None,
    second: float | None,
    resampled_first: np.ndarray,
    resampled_second: np.ndarray,
) -> dict[str, Any]:
    """Return second minus first, both evaluated on the same resamples.

    Args:
        first: value of the first model; None if it is unknown.
        second: value of the second model.
        resampled_first: (R,) values of the first model on R resamples.
        resampled_second: (R,) values of the second model on the same resamples.

    Returns:
        ``{"value", "low", "high", "p_value"}``. The p-value is two-sided: twice the smaller share
        of resamples on either side of no difference (ties count on both sides), never below 1/R.
        It is null where the interval is: both need enough patients of both classes.
    """
    if first is None or second is None:
        return {"value": None, "low": None, "high": None, "p_value": None}
    differences = resampled_second - resampled_first
    defined = differences[np.isfinite(differences)]
    result = estimate(second - first, differences)
    if result["low"] is None:
        return {**result, "p_value": None}
    smaller_side = min(float(np.mean(defined <= 0)), float(np.mean(defined >= 0)))
    result["p_value"] = min(1.0, max(2 * smaller_side, 1 / len(defined)))
    return result


# ---------------------------------------------------------------- metrics of many resamples
# Each takes weights (R, n), one row per resample, and returns (R,): the number that scikit-learn
# gives with ``sample_weight=weights[r]`` (tested), without a Python loop over resamples. NaN where
# a resample holds one class only.


def resampled_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve: the chance that a positive scores higher, ties half.

    Args:
        labels: (n,) of 0 and 1.
        scores: (n,), higher means more likely positive.
        weights: (R, n), not negative.
    """
    positives, negatives = _weights_by_score(labels, scores, weights)
    negatives_below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(axis=1)
    return _ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def resampled_auprc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute average precision: precision at every threshold, weighted by the recall gained there.

    Args:
        labels: (n,) of 0 and 1.
        scores: (n,).
        weights: (R, n), how often each case is in each of R resamples.
    """
    positives, negatives = _weights_by_score(labels, scores, weights)
    true_positives = np.cumsum(positives[:, ::-1], axis=1)
    false_positives = np.cumsum(negatives[:, ::-1], axis=1)
    precision = _ratio(true_positives, true_positives + false_positives, otherwise=0.0)
    total = positives.sum(axis=1)
    average = _ratio((precision * positives[:, ::-1]).sum(axis=1), total)
    average[negatives.sum(axis=1) == 0] = np.nan
    return average


def resampled_decisions(
    labels: np.ndarray, decisions: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics that depend on a threshold.

    Args:
        labels: (n,) of 0 and 1.
        decisions: (n,) True where the score reached the threshold.
        weights: (R, n).

    Returns:
        ``f1`` (of the positive class), ``weighted_f1`` (mean of both classes' F1, weighted by how
        many cases each has), ``balanced_accuracy``, ``sensitivity``, ``specificity``.
    """
    labels = labels.astype(bool)
    true_positives = weights @ (labels & decisions)
    false_negatives = weights @ (labels & ~decisions)
    false_positives = weights @ (~labels & decisions)
    true_negatives = weights @ (~labels & ~decisions)
    positives = true_positives + false_negatives
    negatives = true_negatives + false_positives
    errors = false_positives + false_negatives
    f1 = _ratio(2 * true_positives, 2 * true_positives + errors, otherwise=0.0)
    f1_negative = _ratio(2 * true_negatives, 2 * true_negatives + errors, otherwise=0.0)
    sensitivity = _ratio(true_positives, positives)
    specificity = _ratio(true_negatives, negatives)
    result = {
        "f1": f1,
        "weighted_f1": _ratio(positives * f1 + negatives * f1_negative, positives + negatives),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }
    one_class = (positives == 0) | (negatives == 0)
    for values in result.values():
        values[one_class] = np.nan
    return result


def _weights_by_score(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives per distinct score, ascending: two (R, distinct)."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = weights[:, order]
    positive = labels[order].astype(bool)
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive, starts, axis=1)
    return positives, negatives


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Quotient with ``otherwise`` where the denominator is zero."""
    result = np.full(np.shape(denominator), otherwise, dtype=float)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
