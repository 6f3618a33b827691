"""Thresholds come from one split only and are optimal there."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.metrics import f1_score

from colipri.evaluation import thresholds as module
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.thresholds import choose_thresholds


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
