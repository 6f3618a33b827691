"""Opposites of sentences: readable, and of the other polarity."""

from __future__ import annotations

from types import ModuleType

import pytest

from colipri.text.polarity.affirm import affirm
from colipri.text.polarity.negate import negate
from colipri.text.polarity.tagging import sentence_polarity


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("There is a left pleural effusion.", "There is no left pleural effusion."),
        ("There is an effusion.", "There is no effusion."),
        ("There are pulmonary nodules.", "There are no pulmonary nodules."),
        ("There is pulmonary edema.", "There is no pulmonary edema."),
        ("There is a small effusion on the left.", "There is no small effusion on the left."),
        ("The heart is enlarged.", "The heart is not enlarged."),
        ("The bowel loops are dilated.", "The bowel loops are not dilated."),
        ("A pleural effusion is seen.", "No pleural effusion is seen."),
        ("Nodules are present in both lungs.", "No nodules are present in both lungs."),
        ("Cardiomegaly.", "No cardiomegaly."),
        ("The left kidney contains a cyst.", "The left kidney contains no cyst."),
        ("Lungs: emphysema.", "Lungs: no emphysema."),
    ],
)
def test_pairs_in_both_directions(positive: str, negative: str) -> None:
    assert negate(positive) == negative
    assert affirm(negative) == positive


@pytest.mark.parametrize(
    ("sentence", "denial"),
    [
        ("There are multiple bilateral nodules.", "There are no bilateral nodules."),
        ("A few nodules are seen in the right lung.", "No nodules are seen in the right lung."),
        ("Small effusion and atelectasis.", "No small effusion or atelectasis."),
        ("The effusion is stable.", "No effusion."),
        ("The nodule has not changed.", "No nodule."),
        ("No significant change in the size of the mass.", "No mass."),
        ("Stable 4 mm nodule in the lingula.", "No 4 mm nodule in the lingula."),
        ("The lungs are not clear.", "The lungs are clear."),
        ("In the right lung, a nodule is seen.", "In the right lung, no nodule is seen."),
        ("Status post lobectomy.", "No evidence of lobectomy."),
        ("1. Small left effusion,", "No small left effusion."),
        ("Small effusion, no pneumothorax.", "No small effusion."),
        ("RUL nodule.", "No RUL nodule."),
        ("No effusion.", "No effusion."),
    ],
)
def test_negate(sentence: str, denial: str) -> None:
    assert negate(sentence) == denial


@pytest.mark.parametrize(
    ("sentence", "assertion"),
    [
        ("No pleural effusion or pneumothorax.", "Pleural effusion and pneumothorax."),
        ("There is no evidence of pulmonary embolism.", "There is a pulmonary embolism."),
        ("Without evidence of metastasis.", "Metastasis."),
        ("Pericardial effusion was not detected.", "Pericardial effusion was detected."),
        ("The nodule is no longer seen.", "The nodule is still seen."),
        ("The effusion has resolved.", "The effusion has not resolved."),
        ("The heart is normal in size.", "The heart is abnormal in size."),
        ("The lungs are clear.", "The lungs are not clear."),
        ("Lungs are clear with no nodule.", "Nodule."),
        ("Pneumothorax: none.", "Pneumothorax: present."),
        ("Negative for fracture.", "Fracture."),
        ("Neither nodule nor mass is seen.", "A nodule and a mass are seen."),
        ("Small effusion.", "Small effusion."),
    ],
)
def test_affirm(sentence: str, assertion: str) -> None:
    assert affirm(sentence) == assertion


@pytest.mark.parametrize("sentence", ["Possible nodule.", "Technique: CT.", "Nodule.", ""])
def test_only_denials_are_affirmed(sentence: str) -> None:
    assert affirm(sentence) == sentence


def test_opposites_of_the_evaluation_set_have_the_other_polarity(benchmark: ModuleType) -> None:
    examples = benchmark.read_examples()
    positive = [e.sentence for e in examples if e.expected == ("positive",)]
    negative = [e.sentence for e in examples if e.expected == ("negative",)]
    denied = [sentence_polarity(negate(sentence)) for sentence in positive]
    affirmed = [sentence_polarity(affirm(sentence)) for sentence in negative]
    assert denied.count("negative") >= 0.97 * len(positive)
    assert affirmed.count("positive") >= 0.97 * len(negative)
    assert all(negate(s) and affirm(s) for s in positive + negative)


@pytest.mark.parametrize(
    "text", ["", "?", "😀", "結節なし。", "no", "not", "is not", "and " * 3000, "No, no, no."]
)
def test_odd_text_does_not_crash(text: str) -> None:
    assert isinstance(negate(text), str)
    assert isinstance(affirm(text), str)
