"""Average precision that can be compared between findings: how far it is from chance to perfect.

skill = (AP - prevalence) / (1 - prevalence): 0 for a random ranking of a rare or a frequent finding
alike, 1 for a perfect one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from colipri.evaluation.bootstrap import (
    NUM_RESAMPLES,
    estimate,
    patient_weights,
    resampled_auprc,
    weight_chunks,
)


def skill_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    finding_names: Sequence[str],
    *,
    patients: Sequence[str],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Compute the skill of every finding and its macro mean.

    Args:
        scores: (n, F), higher means more likely present.
        labels: (n, F) of 0, 1 and NaN (unknown).
        finding_names: F names.
        patients: Of every row; resamples draw patients.
        num_resamples: 0 for no intervals.
        seed: Of the resamples.

    Returns:
        The macro mean {value, low, high, findings}, and name -> {value, low, high}; null where a
        finding has one class only.
    """
    values = np.array([_skill(labels[:, i], scores[:, i]) for i in range(len(finding_names))])
    resamples = num_resamples if len(set(patients)) > 1 else 0
    draws = np.full((resamples, len(finding_names)), np.nan)
    if resamples:
        start = 0
        for chunk in weight_chunks(patient_weights(patients, resamples, seed)):
            rows = slice(start, start + len(chunk))
            start += len(chunk)
            for index in range(len(finding_names)):
                draws[rows, index] = _weighted_skill(labels[:, index], scores[:, index], chunk)
    per_finding = {
        name: estimate(_or_none(values[index]), draws[:, index] if resamples else None)
        for index, name in enumerate(finding_names)
    }
    mean = _or_none(_means(values[None])[0])
    macro = estimate(mean, _means(draws) if resamples else None)
    return {**macro, "findings": int(np.isfinite(values).sum())}, per_finding


def _skill(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(_weighted_skill(labels, scores, np.ones((1, len(labels))))[0])


def _weighted_skill(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, n) weights -> (R,); NaN where a resample holds one class only."""
    known = np.isfinite(labels)
    truth, chosen = labels[known], weights[:, known]
    if not len(truth):
        return np.full(len(weights), np.nan)
    average = resampled_auprc(truth, scores[known], chosen)
    with np.errstate(invalid="ignore", divide="ignore"):
        prevalence = chosen @ truth / chosen.sum(axis=1)
        skill: np.ndarray = (average - prevalence) / (1 - prevalence)
    return skill


def _means(values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without any finding stay NaN
        mean: np.ndarray = np.nanmean(values, axis=1)
    return mean


def _or_none(value: float) -> float | None:
    return None if value != value else float(value)
