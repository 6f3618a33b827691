"""Metrics of multi-label scores, per finding and macro, with intervals over patients.

Point estimates are scikit-learn's. Macro is the mean over the findings for which the metric is
defined; their number is always given beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import (
    NUM_RESAMPLES,
    estimate,
    paired_difference,
    patient_weights,
    resampled_auprc,
    resampled_auroc,
    resampled_decisions,
    weight_chunks,
)

RANKING_METRICS = ("auroc", "auprc")
# Where all is right or all is wrong, these are rates over patients that are positive, that are
# negative, or over pairs of one of each that share no patient (Clopper-Pearson). For the others
# there is no such interval.
_TRIALS = {
    "auroc": "pairs",
    "balanced_accuracy": "pairs",
    "sensitivity": "positives",
    "specificity": "negatives",
}
DECISION_METRICS = ("f1", "weighted_f1", "balanced_accuracy", "sensitivity", "specificity")
METRICS = RANKING_METRICS + DECISION_METRICS


def classification_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    finding_names: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    thresholds: Mapping[str, float | None] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute all metrics of one set of scores.

    Args:
        scores: (n, F), higher means more likely present.
        labels: (n, F) of 0, 1 and NaN for unknown; unknown ones are left out per finding.
        finding_names: F names.
        patients: The patient of every row; default: each row is its own patient.
        thresholds: Per finding, from another split; without them the metrics that need a decision
            are null. They are never derived from the labels given here.
        num_resamples: 0 for no intervals.
        seed: Of the resamples.

    Returns:
        ``macro_<metric>``: {value, low, high, findings}, ``per_finding``: name -> {<metric>:
        {value, low, high}, positives, negatives, unknown, threshold}, ``undefined_findings``
        (names with one class only), ``num_cases``, ``num_patients``. null = undefined.

    Raises:
        ColipriError: shapes disagree, a score is not finite, a label is neither 0, 1 nor unknown.
    """
    scores, labels = _checked(scores, labels, finding_names)
    names = list(finding_names)
    patients = [str(row) for row in range(len(scores))] if patients is None else list(patients)
    values = _point_estimates(scores, labels, names, thresholds)
    resamples = num_resamples if len(set(patients)) > 1 else 0  # one patient: nothing to resample
    resampled = _resampled(scores, labels, names, thresholds, patients, resamples, seed)
    result: dict[str, Any] = {}
    for metric in METRICS:
        draws = None if resampled is None else _mean_of_defined(resampled[metric])
        result[f"macro_{metric}"] = _macro(values[metric], draws)
    result["per_finding"] = {
        name: _finding_entry(name, index, labels, patients, values, resampled, thresholds)
        for index, name in enumerate(names)
    }
    if resampled is not None:
        _widen_macro_points(result)
    result["undefined_findings"] = [
        name for name, value in zip(names, values["auroc"], strict=True) if np.isnan(value)
    ]
    result["num_cases"], result["num_patients"] = len(scores), len(set(patients))
    result["bootstrap"] = {"resamples": resamples, "unit": "patient", "level": 0.95, "seed": seed}
    return result


def compare_models(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    finding_names: Sequence[str],
    *,
    patients: Sequence[str],
    thresholds: tuple[Mapping[str, float | None] | None, Mapping[str, float | None] | None] = (
        None,
        None,
    ),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a second model with a first on the same cases, paired: each resample judges both.

    Args:
        first: (n, F) scores of the first model.
        second: (n, F) scores of the second model.
        labels: (n, F) of 0, 1 and NaN (unknown).
        finding_names: F names.
        patients: Patient of each case, length n; resamples draw patients.
        thresholds: Of the first and of the second model.
        num_resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        ``macro_<metric>`` and ``per_finding[name][metric]``: {value, low, high, p_value}.
    """
    names, sides = list(finding_names), []
    for scores, cuts in zip((first, second), thresholds, strict=True):
        scores, known = _checked(scores, labels, names)
        values = _point_estimates(scores, known, names, cuts)
        draws = _resampled(scores, known, names, cuts, patients, num_resamples, seed)
        if draws is None or len(set(patients)) < 2:
            raise ColipriError("a paired comparison needs resamples and more than one patient")
        sides.append((values, draws))
    (value_a, draws_a), (value_b, draws_b) = sides
    result: dict[str, Any] = {"per_finding": {name: {} for name in names}}
    for metric in METRICS:
        result[f"macro_{metric}"] = paired_difference(
            _none_if_nan(_mean_of_defined(value_a[metric][None])[0]),
            _none_if_nan(_mean_of_defined(value_b[metric][None])[0]),
            _mean_of_defined(draws_a[metric]),
            _mean_of_defined(draws_b[metric]),
        )
        for index, name in enumerate(names):
            result["per_finding"][name][metric] = paired_difference(
                _none_if_nan(value_a[metric][index]),
                _none_if_nan(value_b[metric][index]),
                draws_a[metric][:, index],
                draws_b[metric][:, index],
            )
    return result


def _point_estimates(
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    thresholds: Mapping[str, float | None] | None,
) -> dict[str, np.ndarray]:
    """Metric -> (F,) with NaN for undefined."""
    values = {metric: np.full(len(names), np.nan) for metric in METRICS}
    for index, name in enumerate(names):
        known = np.isfinite(labels[:, index])
        truth, score = labels[known, index].astype(int), scores[known, index]
        if len(np.unique(truth)) < 2:
            continue
        threshold = (thresholds or {}).get(name)
        for metric, value in _sklearn_metrics(truth, score, threshold).items():
            values[metric][index] = value
    return values


def _sklearn_metrics(
    truth: np.ndarray, score: np.ndarray, threshold: float | None
) -> dict[str, float]:
    from sklearn import metrics

    values = {
        "auroc": metrics.roc_auc_score(truth, score),
        "auprc": metrics.average_precision_score(truth, score),
    }
    if threshold is not None:
        decided = (score >= threshold).astype(int)
        values |= {
            "f1": metrics.f1_score(truth, decided, zero_division=0),
            "weighted_f1": metrics.f1_score(truth, decided, average="weighted", zero_division=0),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, decided),
            "sensitivity": metrics.recall_score(truth, decided, pos_label=1),
            "specificity": metrics.recall_score(truth, decided, pos_label=0),
        }
    return {name: float(value) for name, value in values.items()}


def _resampled(
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    thresholds: Mapping[str, float | None] | None,
    patients: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, np.ndarray] | None:
    """Metric -> (R, F) with NaN for undefined; None without resamples."""
    if num_resamples == 0:
        return None
    result = {metric: np.full((num_resamples, len(names)), np.nan) for metric in METRICS}
    start = 0
    for chunk in weight_chunks(patient_weights(patients, num_resamples, seed)):
        rows = slice(start, start + len(chunk))
        start += len(chunk)
        for index, name in enumerate(names):
            known = np.isfinite(labels[:, index])
            if not known.any():
                continue
            truth, score, weights = labels[known, index], scores[known, index], chunk[:, known]
            result["auroc"][rows, index] = resampled_auroc(truth, score, weights)
            result["auprc"][rows, index] = resampled_auprc(truth, score, weights)
            threshold = (thresholds or {}).get(name)
            if threshold is None:
                continue
            decided = resampled_decisions(truth, score >= threshold, weights)
            for metric, values in decided.items():
                result[metric][rows, index] = values
    return result


def _finding_entry(
    name: str,
    index: int,
    labels: np.ndarray,
    patients: Sequence[str],
    values: dict[str, np.ndarray],
    resampled: dict[str, np.ndarray] | None,
    thresholds: Mapping[str, float | None] | None,
) -> dict[str, Any]:
    column = labels[:, index]
    trials = _trials(column, patients)
    entry: dict[str, Any] = {
        "positives": int((column == 1).sum()),
        "negatives": int((column == 0).sum()),
        "unknown": int(np.isnan(column).sum()),
        "threshold": (thresholds or {}).get(name),
    }
    for metric in METRICS:
        draws = None if resampled is None else resampled[metric][:, index]
        rate_of = trials.get(_TRIALS.get(metric, ""), 0)
        entry[metric] = estimate(_none_if_nan(values[metric][index]), draws, rate_of)
    return entry


def _trials(column: np.ndarray, patients: Sequence[str]) -> dict[str, int]:
    """Patients with a positive scan, with a negative one, and disjoint pairs of one of each."""
    positive = {patient for patient, label in zip(patients, column, strict=True) if label == 1}
    negative = {patient for patient, label in zip(patients, column, strict=True) if label == 0}
    pairs = min(len(positive), len(negative), len(positive | negative) // 2)
    return {"positives": len(positive), "negatives": len(negative), "pairs": pairs}


def _widen_macro_points(result: dict[str, Any]) -> None:
    """Give a macro mean whose resamples all agree the mean of its findings' intervals.

    It happens where every finding is at 0 or at 1. The mean of the findings' own limits is wider
    than needed, never narrower.
    """
    for metric in METRICS:
        macro = result[f"macro_{metric}"]
        entries = [entry[metric] for entry in result["per_finding"].values()]
        defined = [entry for entry in entries if entry["value"] is not None]
        if macro["low"] is None and defined and all(e["low"] is not None for e in defined):
            macro["low"] = float(np.mean([entry["low"] for entry in defined]))
            macro["high"] = float(np.mean([entry["high"] for entry in defined]))


def _macro(values: np.ndarray, draws: np.ndarray | None) -> dict[str, Any]:
    mean = _none_if_nan(_mean_of_defined(values[None])[0])
    return {**estimate(mean, draws), "findings": int(np.isfinite(values).sum())}


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(R, F) -> (R,): mean over findings without the undefined ones, NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rows are meant to stay NaN
        return np.nanmean(values, axis=1)


def _none_if_nan(value: float) -> float | None:
    return None if value != value else float(value)


def _checked(
    scores: np.ndarray, labels: np.ndarray, finding_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    if scores.ndim != 2 or scores.shape != labels.shape or scores.shape[1] != len(finding_names):
        raise ColipriError(
            f"scores {scores.shape}, labels {labels.shape} and {len(finding_names)} finding names "
            "do not match; expected (cases, findings) for both"
        )
    if not np.isfinite(scores).all():
        raise ColipriError("some scores are not finite; the model's embeddings are broken")
    if not (np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all():
        raise ColipriError("labels must be 0, 1 or unknown (NaN)")
    return scores, labels
