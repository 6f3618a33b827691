"""Nearest and label writers, the head of findings, and random reports."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.writers.controls import random_reports
from colipri.writers.finding_head import fit_finding_head
from colipri.writers.simple_writers import LabelWriter, NearestWriter, most_typical
from colipri.writers.training_reports import EncodedReports

NAMES = ("Effusion", "Nodule")


def _reports(number: int = 60) -> EncodedReports:
    """The first two dimensions tell the two findings; every fifth scan has no report."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (number, 2)).astype(float)
    signal = np.concatenate([labels * 2 - 1, random.normal(0, 0.3, (number, 4))], axis=1)
    embeddings = torch.nn.functional.normalize(torch.from_numpy(signal).float(), dim=1)
    words = ["effusion present", "nodule present"]
    texts = []
    for row in range(number):
        said = [w for w, there in zip(words, labels[row], strict=True) if there] or ["normal"]
        texts.append("" if row % 5 == 4 else f"{' and '.join(said)}. Case {row}.")
    return EncodedReports(
        tuple(f"c{i}" for i in range(number)),
        tuple(f"p{i}" for i in range(number)),
        embeddings,
        tuple(texts),
        labels,
        NAMES,
    )


def test_nearest_returns_the_report_of_the_same_image() -> None:
    reports = _reports()
    writer = NearestWriter(reports)
    rows = [0, 7, 11]
    assert writer.write_of_embeddings(reports.embeddings[rows]) == [reports.texts[r] for r in rows]


def test_labels_writes_a_report_with_the_predicted_findings() -> None:
    reports = _reports()
    data = (reports.embeddings.double().numpy(), reports.labels)
    head = fit_finding_head(data, data, NAMES)
    assert (head.decide(data[0]) == (reports.labels == 1)).mean() > 0.95
    written = LabelWriter(reports, head).write_of_embeddings(reports.embeddings)
    decided = head.decide(data[0])
    for text, (effusion, nodule) in zip(written, decided, strict=True):
        assert ("effusion" in text) == effusion
        assert ("nodule" in text) == nodule


def test_an_unseen_combination_takes_the_closest() -> None:
    reports = _reports()
    only = reports.labels[:, 0] == reports.labels[:, 1]  # none, or both
    rows = np.flatnonzero(only)
    few = EncodedReports(
        tuple(reports.names[i] for i in rows),
        tuple(reports.subjects[i] for i in rows),
        reports.embeddings[rows],
        tuple(reports.texts[i] for i in rows),
        reports.labels[rows],
        NAMES,
    )
    data = (few.embeddings.double().numpy(), few.labels)
    writer = LabelWriter(few, fit_finding_head(data, data, NAMES))
    text = writer.report_of((True, False))
    assert text in few.texts


def test_the_most_typical_text() -> None:
    texts = ["a b c d", "a b c", "x y z", "a b c e"]
    assert most_typical(texts) == 1
    assert most_typical(["only"]) == 0


def test_a_finding_with_too_few_cases_is_never_predicted(caplog: pytest.LogCaptureFixture) -> None:
    reports = _reports()
    labels = reports.labels.copy()
    labels[:, 1] = 0
    labels[0, 1] = 1
    data = (reports.embeddings.double().numpy(), labels)
    logging.getLogger("colipri").propagate = True
    head = fit_finding_head(data, None, NAMES)
    assert head.untrained == ("Nodule",)
    assert not head.decide(data[0])[:, 1].any()
    assert (head.probabilities(data[0])[:, 1] == 0).all()


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(ColipriError, match="no finding has 3 positive"):
        fit_finding_head((np.zeros((4, 3)), np.zeros((4, 1))), None, ["Effusion"])


def test_no_reports_is_an_error() -> None:
    reports = _reports(4)
    without = EncodedReports(
        reports.names, reports.subjects, reports.embeddings, ("",) * 4, reports.labels, NAMES
    )
    with pytest.raises(ColipriError, match="no training case has a report"):
        NearestWriter(without)


def test_random_reports_follow_the_seed() -> None:
    cases = [f"c{i}" for i in range(20)]
    texts = [f"report {i}" for i in range(50)]
    assert random_reports(cases, texts, 1) == random_reports(list(reversed(cases)), texts, 1)
    assert random_reports(cases, texts, 1) != random_reports(cases, texts, 2)
    with pytest.raises(ColipriError, match="no training report"):
        random_reports(cases, [])
