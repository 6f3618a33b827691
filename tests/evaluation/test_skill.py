"""Skill by hand, and its resamples against scikit-learn's average precision."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from colipri.evaluation.bootstrap import patient_weights
from colipri.evaluation.skill import skill_metrics


def test_by_hand() -> None:
    """AP of (1, 0, 1, 0) in this order is (1 + 2/3) / 2; prevalence 1/2."""
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    labels = np.array([[1.0], [0.0], [1.0], [0.0]])
    patients = list("abcd")
    macro, per_finding = skill_metrics(scores, labels, ["a"], patients=patients, num_resamples=0)
    expected = ((1 + 2 / 3) / 2 - 0.5) / 0.5
    assert per_finding["a"] == {"value": pytest.approx(expected), "low": None, "high": None}
    assert macro["value"] == pytest.approx(expected) and macro["findings"] == 1


def test_perfect_chance_and_undefined() -> None:
    labels = np.array([[1.0, 1.0, np.nan], [1.0, 1.0, np.nan], [0.0, 1.0, np.nan]])
    scores = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    macro, found = skill_metrics(
        scores, labels, ["perfect", "one class", "unknown"], patients=list("abc"), num_resamples=0
    )
    assert found["perfect"]["value"] == 1.0
    assert found["one class"]["value"] is None and found["unknown"]["value"] is None
    assert macro["value"] == 1.0 and macro["findings"] == 1


def test_resamples_are_those_of_patients() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 1)).astype(float)
    scores = labels + rng.normal(size=(40, 1))
    patients = [f"p{i // 2}" for i in range(40)]
    _, found = skill_metrics(scores, labels, ["a"], patients=patients, num_resamples=200)
    values = []
    for weights in patient_weights(patients, 200):
        average = average_precision_score(labels[:, 0], scores[:, 0], sample_weight=weights)
        prevalence = np.average(labels[:, 0], weights=weights)
        values.append((average - prevalence) / (1 - prevalence))
    assert found["a"]["low"] == pytest.approx(np.quantile(values, 0.025))
    assert found["a"]["high"] == pytest.approx(np.quantile(values, 0.975))
