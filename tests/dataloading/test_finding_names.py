"""Names of findings: learned from denials, asserted in other words, never both for one report."""

import numpy as np
import pytest

from colipri.dataloading.finding_names import FindingNames
from colipri.dataloading.opposites import FindingPool, OppositeSampler, OppositeSettings
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report

TEXTS = [
    "FINDINGS: No pleural effusion. There is a small right pneumothorax.",
    "FINDINGS: Moderate left pleural effusion. There is no pneumothorax.",
    "FINDINGS: No evidence of pneumothorax or pleural effusion.",
    "FINDINGS: Bilateral pleural effusions. Right pneumothorax. No lymphadenopathy.",
]


def reports(times=3):
    return [structure_report(report_from_text(text)) for text in TEXTS * times]


def test_names_are_denied_somewhere_and_asserted_elsewhere():
    """Lymphadenopathy is only ever denied: nothing could be learned from it."""
    assert FindingNames(reports()).names == ["pleural effusion", "pneumothorax"]


def test_rare_names_are_left_out():
    assert FindingNames(reports(times=1)).names == []
    assert FindingNames([]).of(reports()[0]) == ([], [])


def test_what_a_report_asserts_and_denies():
    names = FindingNames(reports())
    assert [names.of(report) for report in reports(1)] == [
        (["pneumothorax"], ["pleural effusion"]),
        (["pleural effusion"], ["pneumothorax"]),
        ([], ["pneumothorax", "pleural effusion"]),
        (["pleural effusion", "pneumothorax"], []),
    ]


def test_what_is_doubted_is_neither():
    names = FindingNames(reports())
    doubtful = structure_report(
        report_from_text("FINDINGS: No pleural effusion. Possible left pleural effusion.")
    )
    assert names.of(doubtful) == ([], [])


def test_pairs_of_names_have_the_same_words_on_both_sides():
    sampler = OppositeSampler(FindingPool(reports()), OppositeSettings(named=1.0))
    drawn = [pair for r in reports(1) for pair in sampler.draw(r, np.random.default_rng(0))]
    named = [pair for pair in drawn if pair.present in ("Pleural effusion.", "Pneumothorax.")]
    assert {pair.absent for pair in named} == {"No pleural effusion.", "No pneumothorax."}
    assert {pair.shown for pair in named} == {True, False}


def test_without_names_nothing_but_sentences_is_drawn():
    sampler = OppositeSampler(FindingPool(reports()), OppositeSettings(named=0.0))
    assert all(
        pair.present != "Pneumothorax."
        for pair in sampler.draw(reports()[0], np.random.default_rng(0))
    )


def test_no_name_is_asserted_with_more_weight_than_denied():
    """Three reports in four have an effusion, half of the weight says so."""
    texts = ["FINDINGS: Left pleural effusion."] * 30 + ["FINDINGS: No pleural effusion."] * 10
    known = [structure_report(report_from_text(text)) for text in texts]
    sampler = OppositeSampler(FindingPool(known), OppositeSettings(named=1.0))
    drawn = [pair for r in known for pair in sampler.draw(r, np.random.default_rng(0))]
    named = [pair for pair in drawn if pair.present == "Pleural effusion."]
    assert len(named) == len(known)
    shown = sum(pair.weight for pair in named if pair.shown)
    assert shown == pytest.approx(sum(pair.weight for pair in named if not pair.shown))
    assert all(0 < pair.weight <= 1 for pair in named)
