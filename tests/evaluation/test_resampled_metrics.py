"""The vectorised metrics equal scikit-learn's, resample by resample."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from sklearn import metrics

from colipri.evaluation.bootstrap import (
    patient_weights,
    resampled_auprc,
    resampled_auroc,
    resampled_decisions,
)
from colipri.evaluation.classification import classification_metrics


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
