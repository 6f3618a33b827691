"""Which texts count as the same."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.evaluation.retrieval import retrieval_metrics
from colipri.text.prompts.captions import CaptionSettings, draw_caption, full_caption
from colipri.text.prompts.same_text import caption_sentences, report_sentences, text_key
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import StructuredReport, structure_report


def structured(text: str) -> StructuredReport:
    return structure_report(report_from_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "INDICATION: fever\nFINDINGS: Lungs are clear. No effusion.",
        "COMPARISON: CT of 2019.\nIMPRESSION:\n1. Lungs are clear.\n2. No effusion.",
        "FINDINGS:\n- no effusion\n- lungs are clear\nTECHNIQUE: Helical CT.",
        "LUNGS ARE CLEAR.  NO EFFUSION.",
    ],
)
def test_what_is_not_embedded_does_not_count(text: str) -> None:
    assert text_key(structured(text)) == text_key(structured("Lungs are clear. No effusion."))


@pytest.mark.parametrize(
    "text", ["Lungs are clear.", "Lungs are clear. Small effusion.", "Lungs are not clear."]
)
def test_other_sentences_are_other_texts(text: str) -> None:
    assert text_key(structured(text)) != text_key(structured("Lungs are clear. No effusion."))


def test_without_a_report_there_is_no_key() -> None:
    assert text_key(None) == ""


def test_sentences_of_captions_are_those_of_the_report() -> None:
    report = structured(
        "FINDINGS:\n1. Small left effusion, no pneumothorax.\n2) Nodule (se. 3).\nIMPRESSION: Cyst."
    )
    rng = np.random.default_rng(0)
    settings = CaptionSettings(short_prompt=0.0)
    for _ in range(50):
        assert caption_sentences(draw_caption(report, rng, settings)) <= report_sentences(report)


def test_reports_with_one_caption_are_one_candidate_in_retrieval() -> None:
    reports = [
        structured(f"INDICATION: {reason}\nFINDINGS: {findings}")
        for reason, findings in (("cough", "Clear."), ("fever", "Clear."), ("pain", "Nodule."))
    ]
    assert full_caption(reports[0]) == full_caption(reports[1])
    points = np.eye(2)[[0, 0, 1]]
    result = retrieval_metrics(points, points, [text_key(report) for report in reports])
    assert result["image_to_text"]["candidates"] == 2
    assert result["image_to_text"]["recall_at_1"]["value"] == 1.0
    assert result["text_to_image"]["recall_at_1"]["value"] == 1.0
