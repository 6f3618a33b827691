"""Binary classification metrics of many weighted resamples at once.

Every function takes weights (R, n), one row a resample, and returns (R,): the number that
scikit-learn gives with ``sample_weight=weights[r]`` (tested), without a Python loop over resamples.
NaN where a resample holds one class only.
"""

from __future__ import annotations

import numpy as np


def resampled_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

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
    """Average precision: precision at every threshold, weighted by the recall gained there."""
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
    """The metrics that depend on a threshold.

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
