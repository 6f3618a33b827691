"""Point estimates, undefined findings, unknown labels, intervals, comparisons, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics

from colipri.common.errors import ColipriError
from colipri.evaluation.classification import METRICS, classification_metrics, compare_models


def _example(seed: int = 0, n: int = 80) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = (random.random((n, 3)) < 0.3).astype(float)
    return labels + random.normal(size=labels.shape), labels, ["a", "b", "c"]


def test_equal_to_sklearn_and_macro_is_their_mean() -> None:
    scores, labels, names = _example()
    result = classification_metrics(scores, labels, names, num_resamples=200)
    areas = [metrics.roc_auc_score(labels[:, k], scores[:, k]) for k in range(3)]
    assert [result["per_finding"][n]["auroc"]["value"] for n in names] == pytest.approx(areas)
    macro = result["macro_auroc"]
    assert macro["value"] == pytest.approx(np.mean(areas)) and macro["findings"] == 3
    assert macro["low"] < macro["value"] < macro["high"]
    json.dumps(result, allow_nan=False)


def test_analytic_values() -> None:
    labels = np.array([[1.0], [0.0], [1.0], [0.0]])
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    result = classification_metrics(scores, labels, ["x"], thresholds={"x": 0.75}, num_resamples=0)
    expected = {
        "auroc": 3 / 4,
        "auprc": (1 + 2 / 3) / 2,
        "f1": 0.5,
        "weighted_f1": 0.5,
        "balanced_accuracy": 0.5,
        "sensitivity": 0.5,
        "specificity": 0.5,
    }
    for metric in METRICS:
        assert result["per_finding"]["x"][metric]["value"] == pytest.approx(expected[metric])
        assert result[f"macro_{metric}"]["value"] == pytest.approx(expected[metric])


def test_plain_and_weighted_f1_differ_where_classes_do() -> None:
    labels = np.array([[1.0]] + [[0.0]] * 9)
    scores = np.array([[0.0]] + [[0.1]] * 9)
    entry = classification_metrics(scores, labels, ["x"], thresholds={"x": 0.5}, num_resamples=0)[
        "per_finding"
    ]["x"]
    assert entry["f1"]["value"] == 0
    assert entry["weighted_f1"]["value"] == pytest.approx(0.9 * 18 / 19)


def test_one_class_is_undefined_and_left_out() -> None:
    scores, labels, names = _example()
    labels[:, 1] = 0
    result = classification_metrics(
        scores, labels, names, thresholds=dict.fromkeys(names, 0.5), num_resamples=100
    )
    entry = result["per_finding"]["b"]
    assert all(entry[metric]["value"] is None for metric in METRICS)
    assert all(entry[metric]["low"] is None for metric in METRICS)
    assert result["undefined_findings"] == ["b"]
    assert result["macro_auroc"]["findings"] == 2
    two = [result["per_finding"][n]["auroc"]["value"] for n in ("a", "c")]
    assert result["macro_auroc"]["value"] == pytest.approx(np.mean(two))


def test_nothing_defined_gives_null_and_not_zero() -> None:
    result = classification_metrics(np.ones((4, 1)), np.zeros((4, 1)), ["x"], num_resamples=20)
    assert result["macro_auroc"] == {"value": None, "low": None, "high": None, "findings": 0}


def test_unknown_labels_are_left_out_per_finding() -> None:
    scores, labels, names = _example()
    labels[:20, 0] = np.nan
    result = classification_metrics(scores, labels, names, num_resamples=50)
    area = metrics.roc_auc_score(labels[20:, 0], scores[20:, 0])
    assert result["per_finding"]["a"]["auroc"]["value"] == pytest.approx(area)
    assert result["per_finding"]["a"]["unknown"] == 20
    assert result["per_finding"]["b"]["unknown"] == 0


def test_intervals_are_over_patients() -> None:
    """Copying every scan five times adds no knowledge: same interval; unless scans are taken for
    patients, which makes it sqrt(5) narrower."""
    scores, labels, names = _example()
    patients = [str(row) for row in range(len(scores))]
    copied = [np.repeat(values, 5, axis=0) for values in (scores, labels)]
    once = classification_metrics(scores, labels, names, patients=patients)["macro_auroc"]
    honest = classification_metrics(*copied, names, patients=np.repeat(patients, 5).tolist())[
        "macro_auroc"
    ]
    naive = classification_metrics(*copied, names)["macro_auroc"]
    width = once["high"] - once["low"]
    assert honest["high"] - honest["low"] == pytest.approx(width, rel=0.02)
    assert naive["high"] - naive["low"] == pytest.approx(width / math.sqrt(5), rel=0.15)


def test_interval_covers_the_truth() -> None:
    """Of 40 experiments with a known AUROC, about 95 % of the intervals hold it."""
    truth = 0.5 * (1 + math.erf(1 / 2))  # two unit normals, means one apart: Phi(1/sqrt 2)
    hits = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        labels = (np.arange(120)[:, None] % 3 == 0).astype(float)
        scores = labels + random.normal(size=labels.shape)
        macro = classification_metrics(scores, labels, ["x"], num_resamples=300)["macro_auroc"]
        hits += macro["low"] <= truth <= macro["high"]
    assert 34 <= hits <= 40


def test_one_patient_has_no_interval() -> None:
    scores, labels, names = _example(n=12)
    result = classification_metrics(scores, labels, names, patients=["same"] * 12)
    assert result["macro_auroc"]["value"] is not None
    assert result["macro_auroc"]["low"] is None
    assert result["bootstrap"]["resamples"] == 0


def test_paired_comparison_is_tighter_than_two_intervals() -> None:
    scores, labels, names = _example(n=200)
    better = scores + 0.3 * labels
    patients = [str(row) for row in range(200)]
    result = compare_models(scores, better, labels, names, patients=patients, num_resamples=500)
    difference = result["macro_auroc"]
    assert difference["low"] > 0 and difference["p_value"] < 0.05
    single = classification_metrics(scores, labels, names, num_resamples=500)["macro_auroc"]
    assert difference["high"] - difference["low"] < (single["high"] - single["low"]) / 2
    assert set(result["per_finding"]) == set(names)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), "do not match; expected"),
        (np.full((3, 1), np.nan), np.zeros((3, 1)), "not finite"),
        (np.zeros((3, 1)), np.full((3, 1), 2.0), "must be 0, 1 or unknown"),
    ],
)
def test_bad_input(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ColipriError, match=message):
        classification_metrics(scores, labels, ["x"])


def test_perfect_scores_of_few_patients_are_not_certain() -> None:
    """Three patients of each kind: an AUROC of 1 had the interval [1, 1]."""
    labels = np.array([[1.0], [1], [1], [0], [0], [0]])
    result = classification_metrics(labels, labels, ["x"], thresholds={"x": 0.5}, num_resamples=200)
    entry = result["per_finding"]["x"]
    bound = 0.025 ** (1 / 3)
    for metric in ("auroc", "sensitivity", "specificity", "balanced_accuracy"):
        assert entry[metric] == {"value": 1.0, "low": pytest.approx(bound), "high": 1.0}
    assert entry["f1"]["low"] is None and result["macro_f1"]["low"] is None
    assert result["macro_auroc"]["low"] == pytest.approx(bound)


def test_scans_of_one_patient_are_one_success() -> None:
    labels = np.array([[1.0], [1], [1], [0], [0]])
    patients = ["a", "a", "a", "b", "c"]
    entry = classification_metrics(
        labels, labels, ["x"], patients=patients, thresholds={"x": 0.5}, num_resamples=200
    )["per_finding"]["x"]
    assert entry["sensitivity"]["low"] == pytest.approx(0.025)
    assert entry["specificity"]["low"] == pytest.approx(0.025**0.5)
