"""Resampling is by patient and repeatable; metrics of many resamples equal scikit-learn's."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from scipy.stats import beta
from sklearn import metrics

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import (
    estimate,
    extreme_interval,
    paired_difference,
    patient_weights,
    percentile_interval,
    resampled_auprc,
    resampled_auroc,
    resampled_decisions,
)
from colipri.evaluation.classification import classification_metrics


def test_scans_of_a_patient_are_drawn_together() -> None:
    patients = ["a", "b", "a", "c", "b", "a"]
    weights = patient_weights(patients, 500, seed=1)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    one_scan_each = weights[:, [0, 1, 3]]
    assert (one_scan_each.sum(axis=1) == 3).all()
    assert 0.9 < one_scan_each.mean() < 1.1
    assert len(np.unique(one_scan_each, axis=0)) == 10  # all multisets of 3 out of 3 occur


def test_same_seed_same_resamples() -> None:
    patients = [str(number) for number in range(20)]
    first = patient_weights(patients, 50, seed=3)
    assert (first == patient_weights(patients, 50, seed=3)).all()
    assert (first != patient_weights(patients, 50, seed=4)).any()


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    """Standard error of a mean: sigma / sqrt(patients), whatever the number of copies."""
    random = np.random.default_rng(0)
    values = np.repeat(random.normal(size=400), 3)  # 3 scans a patient, all alike
    patients = np.repeat([str(number) for number in range(400)], 3).tolist()
    weights = patient_weights(patients, 2000, seed=0).astype(float)
    low, high = percentile_interval(weights @ values / weights.sum(axis=1)) or (0, 0)
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(2 * half_width, rel=0.08)


def test_interval_needs_most_resamples() -> None:
    values = np.array([np.nan] * 50 + [0.5] * 50)
    assert percentile_interval(values) is None
    assert percentile_interval(np.array([np.nan] * 49 + [0.5] * 51)) == (0.5, 0.5)
    assert estimate(None, np.array([0.5, 0.6])) == {"value": None, "low": None, "high": None}


def test_a_p_value_needs_as_many_patients_as_an_interval() -> None:
    """Two lucky resamples out of 2,000 gave p = 1 beside an interval of null."""
    rare = np.full(2000, np.nan)
    rare[:2] = 0.5, 0.7
    result = paired_difference(0.5, 0.6, rare, rare + 0.1)
    assert result["low"] is None and result["p_value"] is None


def test_a_rate_of_one_has_an_interval_and_not_a_point() -> None:
    ones, zeros = np.ones(500), np.zeros(500)
    low = estimate(1.0, ones, trials=10)["low"]
    assert low == pytest.approx(beta.ppf(0.025, 10, 1)) == pytest.approx(0.6915, abs=1e-4)
    assert estimate(0.0, zeros, trials=10)["high"] == pytest.approx(beta.ppf(0.975, 1, 10))
    assert estimate(1.0, ones) == {"value": 1.0, "low": None, "high": None}
    assert extreme_interval(0.5, 10) is None and extreme_interval(1.0, 0) is None


def test_no_patients_is_an_error() -> None:
    with pytest.raises(ColipriError, match="at least one patient"):
        patient_weights([])


def test_paired_difference() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=2000)
    result = paired_difference(0.5, 0.6, shared, shared + 0.1)
    assert result["low"] == pytest.approx(0.1) and result["high"] == pytest.approx(0.1)
    assert result["p_value"] == pytest.approx(1 / 2000)
    same = paired_difference(0.5, 0.5, shared, shared)
    assert same == {"value": 0.0, "low": None, "high": None, "p_value": None}
    half = paired_difference(0.5, 0.6, shared, shared + random.normal(size=2000))
    assert half["low"] < 0.1 < half["high"] and 0 < half["p_value"] <= 1
    assert paired_difference(None, 0.5, shared, shared)["value"] is None


@pytest.mark.parametrize("decimals", [1, 8], ids=["many ties", "no ties"])
def test_equal_to_sklearn(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    labels = (random.random(60) < 0.2).astype(float)
    scores = np.round(labels * 0.5 + random.random(60), decimals)
    weights = patient_weights([str(row // 2) for row in range(60)], 40, seed=0).astype(float)
    decided = scores >= 0.8
    decisions = resampled_decisions(labels, decided, weights)
    area = resampled_auroc(labels, scores, weights)
    precision = resampled_auprc(labels, scores, weights)
    for row, weight in enumerate(weights):
        options = {"sample_weight": weight}
        assert area[row] == pytest.approx(metrics.roc_auc_score(labels, scores, **options))
        assert precision[row] == pytest.approx(
            metrics.average_precision_score(labels, scores, **options)
        )
        f1 = metrics.f1_score(labels, decided, **options)
        assert decisions["f1"][row] == pytest.approx(f1)
        weighted = metrics.f1_score(labels, decided, average="weighted", **options)
        assert decisions["weighted_f1"][row] == pytest.approx(weighted)
        balanced = metrics.balanced_accuracy_score(labels, decided, **options)
        assert decisions["balanced_accuracy"][row] == pytest.approx(balanced)
        sensitivity = metrics.recall_score(labels, decided, **options)
        assert decisions["sensitivity"][row] == pytest.approx(sensitivity)
        specificity = metrics.recall_score(labels, decided, pos_label=0, **options)
        assert decisions["specificity"][row] == pytest.approx(specificity)


def test_one_class_resamples_are_undefined() -> None:
    labels, scores = np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2])
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    area = resampled_auroc(labels, scores, weights)
    assert area[0] == 1 and np.isnan(area[1:]).all()
    assert np.isnan(resampled_auprc(labels, scores, weights)[1:]).all()
    for values in resampled_decisions(labels, scores >= 0.5, weights).values():
        assert values[0] == 1 and np.isnan(values[1:]).all()


def test_fast_enough() -> None:
    """2,000 resamples, 10 findings, 300 cases: a few seconds even on a busy small machine."""
    random = np.random.default_rng(0)
    labels = (random.random((300, 10)) < 0.3).astype(float)
    scores = labels + random.normal(size=labels.shape)
    names = [f"finding {index}" for index in range(10)]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classification_metrics(scores, labels, names, thresholds=dict.fromkeys(names, 0.5))
    assert time.process_time() - start < 8
