"""Thresholds come from one split only and are optimal there."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from colipri.evaluation import thresholds as module
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.thresholds import choose_thresholds, roc_with_band


def test_maximum_f1_by_exhaustion() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        labels = (random.random((40, 1)) < 0.3).astype(float)
        scores = np.round(labels + random.normal(size=labels.shape), 1)
        chosen = choose_thresholds(scores, labels, ["x"])["x"]
        best = max(f1_score(labels[:, 0], scores[:, 0] >= cut) for cut in scores[:, 0])
        assert f1_score(labels[:, 0], scores[:, 0] >= chosen) == pytest.approx(best)


def test_middle_of_the_gap_and_unknown_labels() -> None:
    scores = np.array([[0.1], [0.2], [0.8], [0.9], [0.5]])
    labels = np.array([[0.0], [0.0], [1.0], [1.0], [np.nan]])
    assert choose_thresholds(scores, labels, ["x"]) == {"x": pytest.approx(0.5)}


def test_one_class_has_no_threshold() -> None:
    scores = np.array([[0.1, 0.3], [0.2, 0.4]])
    labels = np.array([[0.0, np.nan], [0.0, np.nan]])
    assert choose_thresholds(scores, labels, ["x", "y"]) == {"x": None, "y": None}


def test_test_labels_cannot_change_decisions() -> None:
    """Turning every test label around turns sensitivity into 1 - specificity, exactly: the
    decisions stayed the same."""
    random = np.random.default_rng(1)
    val_labels = (random.random((50, 2)) < 0.4).astype(float)
    val_scores = val_labels + random.normal(size=val_labels.shape)
    cuts = choose_thresholds(val_scores, val_labels, ["x", "y"])
    labels = (random.random((60, 2)) < 0.4).astype(float)
    scores = labels + random.normal(size=labels.shape)
    options = {"thresholds": cuts, "num_resamples": 0}
    right = classification_metrics(scores, labels, ["x", "y"], **options)
    turned = classification_metrics(scores, 1 - labels, ["x", "y"], **options)
    for name in ("x", "y"):
        before, after = right["per_finding"][name], turned["per_finding"][name]
        assert before["threshold"] == after["threshold"] == cuts[name]
        assert after["sensitivity"]["value"] == pytest.approx(1 - before["specificity"]["value"])
        assert after["auroc"]["value"] == pytest.approx(1 - before["auroc"]["value"])
    without = classification_metrics(scores, labels, ["x", "y"], num_resamples=0)
    assert without["macro_f1"]["value"] is None and without["macro_auroc"]["value"] is not None


def test_evaluation_cannot_choose() -> None:
    """classification.py does not even import the choosing of thresholds."""
    from colipri.evaluation import classification

    assert "choose_thresholds" not in inspect.getsource(classification)
    assert "choose_thresholds" in inspect.getsource(module)


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
