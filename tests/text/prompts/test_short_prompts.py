"""Short prompts: only what the sentence makes true."""

from __future__ import annotations

from types import ModuleType

import pytest

from colipri.text.polarity.tagging import Polarity, sentence_polarity, tag_sentence
from colipri.text.prompts.short_prompts import report_prompts, short_prompts
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


@pytest.mark.parametrize(
    ("sentence", "polarity", "prompts"),
    [
        ("Pleural effusion.", "positive", ["pleural effusion"]),
        (
            "There is a small left pleural effusion.",
            "positive",
            ["small left pleural effusion"],
        ),
        (
            "A 6 mm solid nodule is seen in the right upper lobe.",
            "positive",
            ["6 mm solid nodule"],
        ),
        ("but there are multiple pulmonary nodules,", "positive", ["pulmonary nodules"]),
        ("LUNGS: Emphysema with bullae.", "positive", ["emphysema"]),
        ("No pleural effusion.", "negative", ["no pleural effusion"]),
        ("There is no evidence of pulmonary embolism.", "negative", ["no pulmonary embolism"]),
        (
            "No effusion, pneumothorax or mass is seen.",
            "negative",
            ["no effusion", "no pneumothorax", "no mass"],
        ),
        (
            "No pleural or pericardial effusion.",
            "negative",
            ["no pleural or pericardial effusion"],
        ),
        (
            "No nodule or mass in the left lung.",
            "negative",
            ["no nodule or mass in the left lung"],
        ),
        ("No large effusion or pneumothorax.", "negative", ["no large effusion or pneumothorax"]),
        ("No nodule is seen in the left lung.", "negative", []),  # elsewhere there may be one
        ("The heart is normal.", "negative", []),
        ("The heart is enlarged.", "positive", []),
        ("No change in the nodule.", "positive", []),
        ("Possible mass.", "uncertain", []),
        ("CT of the chest.", "neutral", []),
        ("", "positive", []),
        ("😀", "positive", []),
    ],
)
def test_prompts(sentence: str, polarity: Polarity, prompts: list[str]) -> None:
    assert list(short_prompts(sentence, polarity)) == prompts


def test_prompts_keep_the_polarity_and_are_short(benchmark: ModuleType) -> None:
    count = 0
    for example in benchmark.read_examples():
        for clause in tag_sentence(example.sentence):
            for prompt in short_prompts(clause.text, clause.polarity):
                count += 1
                assert sentence_polarity(prompt) == clause.polarity
                assert len(prompt.split()) <= 8
                words = clause.text.lower()
                assert all(word.lower() in words for word in prompt.split() if word != "no")
    assert count > 200


def test_report_prompts_a_report() -> None:
    report = report_from_text("FINDINGS: Nodule in the RUL, no effusion.\nIMPRESSION: Nodule.")
    assert report_prompts(structure_report(report)) == {
        "nodule in the rul",
        "no effusion",
        "nodule",
    }
