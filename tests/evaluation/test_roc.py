"""ROC curves: corners, area, band."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from colipri.evaluation.thresholds import roc_with_band


def _example(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.4).astype(float)
    return labels, labels + random.normal(size=n), [str(row) for row in range(n)]


def test_area_under_the_curve() -> None:
    labels, scores, patients = _example(100)
    labels[:10] = np.nan
    curve = roc_with_band(labels, scores, patients, num_resamples=50)
    assert curve is not None
    area = np.trapezoid(curve.sensitivity, curve.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(labels[10:], scores[10:]))


def test_band_holds_the_curve_and_narrows() -> None:
    widths = []
    for n in (60, 600):
        curve = roc_with_band(*_example(n), num_resamples=200)
        assert curve is not None
        middle = np.interp(curve.grid, curve.false_positive_rate, curve.sensitivity)
        assert ((curve.low <= middle + 0.1) & (middle <= curve.high + 0.1)).all()
        widths.append((curve.high - curve.low)[10:60].mean())
    assert widths[1] < widths[0] / 2


def test_undefined_and_one_patient() -> None:
    labels, scores, _ = _example(20)
    assert roc_with_band(np.zeros(20), scores, ["a"] * 20) is None
    curve = roc_with_band(labels, scores, ["a"] * 20)
    assert curve is not None and len(curve.low) == 0
