"""Precision, recall, F1 and CRG: worked by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from colipri.common.errors import ColipriError
from colipri.report_metrics.findings import (
    FindingLabels,
    finding_metrics,
    findings_without_positives,
    per_finding,
)
from colipri.report_metrics.resampling import Resamples, difference

NAMES = ("Effusion", "Nodule")


def _labels(reference: object, generated: object) -> FindingLabels:
    return FindingLabels(
        NAMES, np.array(reference, dtype=float), np.array(generated, dtype=float), "test"
    )


def test_worked_by_hand() -> None:
    # effusion: 1 hit, 1 miss, 1 alarm; nodule: 2 hits, 1 alarm
    labels = _labels([[1, 1], [1, 1], [0, 0], [0, 0]], [[1, 1], [0, 1], [1, 1], [0, 0]])
    found = {name: m.value for name, m in finding_metrics(labels, Resamples.of("abcd", 0)).items()}
    assert found["macro_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["macro_recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((0.5 + 0.8) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    # X = 8, A = 4: r = 0.5, U = 2, s = 0.5 * 3 - 0.5 * 1 - 2 = -1, CRG = 2 / (4 + 1)
    assert found["crg"] == pytest.approx(0.4)


def test_crg_of_perfect_and_of_empty_reports() -> None:
    truth = [[1, 0], [0, 1], [0, 0]]
    perfect = finding_metrics(_labels(truth, truth), Resamples.of("abc", 0))
    empty = finding_metrics(_labels(truth, np.zeros((3, 2))), Resamples.of("abc", 0))
    assert perfect["crg"].value == pytest.approx(1)
    assert empty["crg"].value == pytest.approx(1 / 3)


def test_equal_to_scikit_learn() -> None:
    random = np.random.default_rng(0)
    reference, generated = random.integers(0, 2, (2, 40, 2))
    found = finding_metrics(
        _labels(reference, generated), Resamples.of(list(map(str, range(40))), 0)
    )
    for kind in ("macro", "micro"):
        theirs = precision_recall_fscore_support(
            reference, generated, average=kind, zero_division=0
        )
        for score, value in zip(("precision", "recall", "f1"), theirs, strict=False):
            assert found[f"{kind}_{score}"].value == pytest.approx(value)


def test_unknown_labels_are_left_out_and_counted() -> None:
    labels = _labels([[1, np.nan], [0, 1]], [[1, 1], [0, 1]])
    entries = per_finding(labels, Resamples.of("ab", 0))
    assert entries["Nodule"]["unknown"] == 1
    assert entries["Nodule"]["precision"]["value"] == 1


def test_a_finding_in_no_reference_has_no_f1_but_its_alarms_count() -> None:
    labels = _labels([[1, 0], [1, 0]], [[1, 1], [1, 1]])
    found = finding_metrics(labels, Resamples.of("ab", 0))
    assert findings_without_positives(labels) == ["Nodule"]
    assert found["macro_f1"].value == 1
    assert found["micro_precision"].value == pytest.approx(0.5)
    assert per_finding(labels, Resamples.of("ab", 0))["Nodule"]["f1"]["value"] is None


def test_resamples_take_patients_and_pairs_share_them() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, (30, 2))
    noisy = np.where(random.random((30, 2)) < 0.3, 1 - truth, truth)
    patients = [str(row // 2) for row in range(30)]
    resamples = Resamples.of(patients, 200)
    assert (resamples.weights[:, ::2] == resamples.weights[:, 1::2]).all()
    good = finding_metrics(_labels(truth, truth), resamples)["macro_f1"]
    bad = finding_metrics(_labels(truth, noisy), resamples)["macro_f1"]
    row = np.repeat(np.arange(30), resamples.weights[5])
    again = finding_metrics(_labels(truth[row], noisy[row]), Resamples.of(["x"], 0))["macro_f1"]
    assert bad.draws[5] == pytest.approx(again.value)
    gap = difference(good, bad)
    assert gap["low"] > 0
    assert gap["p_value"] <= 0.01


@pytest.mark.parametrize(
    ("generated", "what"), [([[2, 0]], "0 or 1"), ([[1, 0, 0]], "must both be")]
)
def test_wrong_labels_are_errors(generated: list[list[int]], what: str) -> None:
    with pytest.raises(ColipriError, match=what):
        _labels([[1, 0]], generated)
