"""Resampling is by patient, repeatable, and its intervals are neither too narrow nor invented."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import (
    estimate,
    paired_difference,
    patient_weights,
    percentile_interval,
)


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
    assert same["value"] == 0 and same["p_value"] == 1.0
    assert paired_difference(None, 0.5, shared, shared)["value"] is None
