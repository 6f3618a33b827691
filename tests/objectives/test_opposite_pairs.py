"""Opposite sentences of an image: true positives, real absences, and resumable."""

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.objectives.opposite_sentence import FindingPool, OppositeSentence
from colipri.text.finding_names import FindingNames
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


def report(text):
    return structure_report(report_from_text(text))


SICK = report(
    "FINDINGS: There is a large left pleural effusion. Consolidation in the right lower lobe. "
    "The heart is enlarged. No pneumothorax."
)
OTHERS = [
    SICK,
    report("FINDINGS: Small right pleural effusion. Emphysema in both upper lobes."),
    report("FINDINGS: There is a hiatal hernia. Rib fracture on the left."),
    report("FINDINGS: Possible pericardial effusion. Cardiomegaly."),
]
EFFUSION_ONLY = report("FINDINGS: Small right pleural effusion. No pneumothorax. No nodules.")


class Reports(list):
    """Training reports, as a run hands them to its objectives."""

    @property
    def finding_names(self):
        return FindingNames(self)


def sampler(reports=OTHERS, **settings):
    objective = OppositeSentence(**settings)
    objective.prepare(Reports(reports))
    return objective


def draw(of, number=0, **settings):
    return sampler(**settings).draw(of, np.random.default_rng(number))


def test_half_are_own_findings_and_half_are_absent_ones():
    pairs = draw(SICK, pairs=6, negated_fraction=0.0)
    shown = [pair for pair in pairs if pair.shown]
    assert {pair.present for pair in shown} == {
        "There is a large left pleural effusion.",
        "Consolidation in the right lower lobe.",
        "The heart is enlarged.",
    }
    assert any(pair.absent == "There is no large left pleural effusion." for pair in shown)
    assert any(pair.absent == "The heart is not enlarged." for pair in shown)
    absent = {pair.present for pair in pairs if not pair.shown}
    assert absent  # hernia or fracture: the only organ systems without a finding in this report
    assert absent <= {"There is a hiatal hernia.", "Rib fracture on the left."}


@pytest.mark.parametrize("number", range(20))
def test_no_absence_comes_from_an_organ_in_which_the_report_has_a_finding(number):
    """Others' effusions are of the same organ system: they may be what this image shows."""
    for pair in draw(EFFUSION_ONLY, number, pairs=16, negated_fraction=0.0):
        if not pair.shown:
            assert "effusion" not in pair.present or "pericardial" in pair.present


def test_an_uncertain_finding_is_no_absence_either():
    uncertain = report("FINDINGS: Possible hiatal hernia. No effusion.")
    present = [
        pair.present
        for number in range(30)
        for pair in draw(uncertain, number, negated_fraction=0.0)
        if not pair.shown
    ]
    assert present
    assert "There is a hiatal hernia." not in present


def test_what_the_report_denies_is_absent():
    pairs = draw(EFFUSION_ONLY, negated_fraction=1.0)
    absences = {(pair.present, pair.absent) for pair in pairs if not pair.shown}
    assert ("Pneumothorax.", "No pneumothorax.") in absences
    assert ("Nodules.", "No nodules.") in absences


def test_it_is_a_function_of_the_generator_and_never_draws_a_pair_twice():
    first, again = draw(SICK, 5), draw(SICK, 5)
    assert first == again
    assert len({tuple(draw(SICK, number)) for number in range(20)}) > 5
    for number in range(20):
        pairs = draw(SICK, number, pairs=16)
        assert len(pairs) == len(set(pairs))


def test_frequent_findings_are_drawn_more_often():
    many = [report("FINDINGS: Emphysema.")] * 9 + [report("FINDINGS: There is a lung nodule.")]
    pool = FindingPool(many)
    rng = np.random.default_rng(0)
    drawn = [pool.draw(["lungs"], rng) for _ in range(500)]
    assert drawn.count("Emphysema.") == pytest.approx(450, abs=30)


def test_a_normal_report_and_an_image_without_report_have_only_what_they_can():
    assert draw(None) == []
    normal = draw(report("Normal study."))
    assert normal
    assert not any(pair.shown for pair in normal)


def test_reports_without_any_finding_are_refused_with_a_way_out():
    with pytest.raises(ColipriError, match="without objective O"):
        sampler([report("No effusion.")])


@pytest.mark.parametrize("settings", [{"pairs": 1}, {"negated_fraction": 1.5}])
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ColipriError, match=next(iter(settings))):
        OppositeSentence(**settings)


NAMED_TEXTS = [
    "FINDINGS: No pleural effusion. There is a small right pneumothorax.",
    "FINDINGS: Moderate left pleural effusion. There is no pneumothorax.",
    "FINDINGS: No evidence of pneumothorax or pleural effusion.",
    "FINDINGS: Bilateral pleural effusions. Right pneumothorax. No lymphadenopathy.",
]


def named_reports(times=3):
    return [report(text) for text in NAMED_TEXTS * times]


def test_pairs_of_names_have_the_same_words_on_both_sides():
    drawing = sampler(named_reports(), bare_name_fraction=1.0)
    drawn = [pair for r in named_reports(1) for pair in drawing.draw(r, np.random.default_rng(0))]
    named = [pair for pair in drawn if pair.present in ("Pleural effusion.", "Pneumothorax.")]
    assert {pair.absent for pair in named} == {"No pleural effusion.", "No pneumothorax."}
    assert {pair.shown for pair in named} == {True, False}


def test_without_names_nothing_but_sentences_is_drawn():
    drawing = sampler(named_reports(), bare_name_fraction=0.0)
    assert all(
        pair.present != "Pneumothorax."
        for pair in drawing.draw(named_reports()[0], np.random.default_rng(0))
    )


def test_no_name_is_asserted_with_more_weight_than_denied():
    """Three reports in four have an effusion, half of the weight says so."""
    texts = ["FINDINGS: Left pleural effusion."] * 30 + ["FINDINGS: No pleural effusion."] * 10
    known = [report(text) for text in texts]
    drawing = sampler(known, bare_name_fraction=1.0)
    drawn = [pair for r in known for pair in drawing.draw(r, np.random.default_rng(0))]
    named = [pair for pair in drawn if pair.present == "Pleural effusion."]
    assert len(named) == len(known)
    shown = sum(pair.weight for pair in named if pair.shown)
    assert shown == pytest.approx(sum(pair.weight for pair in named if not pair.shown))
    assert all(0 < pair.weight <= 1 for pair in named)
