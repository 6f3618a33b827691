"""Captions: every way of varying them, and that text is never lost altogether."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from colipri.common.errors import ColipriError
from colipri.text.prompts.captions import (
    NO_AUGMENTATION,
    CaptionSettings,
    draw_caption,
    full_caption,
)
from colipri.text.reports.report import Report, report_from_text
from colipri.text.structured_report import StructuredReport, structure_report

TEXT = """TECHNIQUE: CT.
FINDINGS: Small left effusion, but no pneumothorax. The heart is normal. Nodule in the RUL.
IMPRESSION: 1. Effusion.
2. Possible metastasis."""
FINDINGS = [
    "Small left effusion.",
    "No pneumothorax.",
    "The heart is normal.",
    "Nodule in the RUL.",
]
IMPRESSION = ["Effusion.", "Possible metastasis."]


@pytest.fixture
def structured() -> StructuredReport:
    return structure_report(report_from_text(TEXT))


def draw_many(structured: StructuredReport, count: int = 400, **changes: float) -> list[str]:
    settings = replace(NO_AUGMENTATION, **changes)  # type: ignore[arg-type]
    return [draw_caption(structured, np.random.default_rng(i), settings) for i in range(count)]


def test_full_caption_is_the_report_without_its_context(structured: StructuredReport) -> None:
    assert full_caption(structured) == " ".join(FINDINGS + IMPRESSION)
    assert draw_many(structured, 5) == [full_caption(structured)] * 5


def test_the_seed_decides(structured: StructuredReport) -> None:
    settings = CaptionSettings()
    drawn = [draw_caption(structured, np.random.default_rng(i), settings) for i in range(50)]
    again = [draw_caption(structured, np.random.default_rng(i), settings) for i in range(50)]
    assert drawn == again
    assert len(set(drawn)) > 20


def test_sentence_shuffling_stays_within_sections(structured: StructuredReport) -> None:
    drawn = draw_many(structured, shuffle_sentences=1.0)
    assert len(set(drawn)) == 24 * 2  # all orders of four and of two sentences
    assert all(sorted(caption) == sorted(full_caption(structured)) for caption in drawn)
    assert all(max(map(caption.find, FINDINGS)) < caption.find("Possible") for caption in drawn)


def test_section_shuffling_keeps_the_order_inside(structured: StructuredReport) -> None:
    counts = Counter(draw_many(structured, shuffle_sections=1.0))
    assert set(counts) == {
        " ".join(FINDINGS + IMPRESSION),
        " ".join(IMPRESSION + FINDINGS),
    }
    assert min(counts.values()) > 150


def test_choice_of_sections(structured: StructuredReport) -> None:
    counts = Counter(draw_many(structured, findings_only=0.5, impression_only=0.25))
    assert 170 < counts[" ".join(FINDINGS)] < 230
    assert 70 < counts[" ".join(IMPRESSION)] < 130
    assert 70 < counts[full_caption(structured)] < 130


def test_reports_with_one_section_are_used_whole() -> None:
    structured = structure_report(report_from_text("IMPRESSION: Effusion."))
    assert set(draw_many(structured, 20, findings_only=1.0)) == {"Effusion."}


def test_dropping_sentences(structured: StructuredReport) -> None:
    drawn = draw_many(structured, drop_sentence=0.5)
    shares = [sum(s in caption for caption in drawn) / len(drawn) for s in FINDINGS[1:]]
    assert all(0.4 < share < 0.6 for share in shares)
    assert all(drawn)
    assert all(draw_many(structured, 50, drop_sentence=1.0))


def test_short_prompts_are_one_sentence_of_either_polarity(structured: StructuredReport) -> None:
    changes = {"short_prompt": 1.0, "short_prompt_negative": 0.5, "short_prompt_bare": 0.0}
    counts = Counter(draw_many(structured, **changes))
    assert set(counts) == {*FINDINGS, "Effusion."}
    denials = counts["No pneumothorax."] + counts["The heart is normal."]
    assert 160 < denials < 240
    only_negative = structure_report(report_from_text("No effusion."))
    assert set(draw_many(only_negative, 20, short_prompt=1.0)) == {"No effusion.", "no effusion"}


def test_short_prompts_may_be_the_bare_finding(structured: StructuredReport) -> None:
    counts = Counter(draw_many(structured, short_prompt=1.0, short_prompt_bare=1.0))
    bare = {"small left effusion", "no pneumothorax", "nodule in the RUL", "effusion"}
    assert set(counts) == {*bare, "The heart is normal."}  # which has no such form


def test_max_sentences(structured: StructuredReport) -> None:
    drawn = draw_many(structured, max_sentences=2)
    assert all(sum(s in caption for s in FINDINGS + IMPRESSION[1:]) <= 2 for caption in drawn)
    assert len(set(drawn)) > 8  # which two varies


@pytest.mark.parametrize(
    "text",
    [
        "Normal",
        "TECHNIQUE: CT of the chest.",
        "Kein Erguss. Rundherd rechts.",
        "😀",
        "FINDINGS: ?",
        "COMPARISON: None.\nRECOMMENDATION: Follow-up.",
        ",",
        "No effusion. No nodule.",
    ],
)
def test_a_report_with_any_text_has_a_caption(text: str) -> None:
    structured = structure_report(report_from_text(text))
    settings = CaptionSettings(drop_sentence=1.0, short_prompt=0.5, max_sentences=1)
    for seed in range(20):
        assert draw_caption(structured, np.random.default_rng(seed), settings).strip()
    assert full_caption(structured).strip()


def test_an_empty_report_has_an_empty_caption() -> None:
    structured = structure_report(Report({}))
    assert full_caption(structured) == ""
    assert draw_caption(structured, np.random.default_rng(0), CaptionSettings()) == ""


def test_settings_round_trip_and_are_checked() -> None:
    settings = CaptionSettings(shuffle_sentences=0.25, max_sentences=12)
    assert CaptionSettings.from_dict(settings.to_dict()) == settings
    assert CaptionSettings.from_dict({}) == CaptionSettings()
    with pytest.raises(ColipriError, match="has no entry 'shuffle'; did you mean 'shuffle_se"):
        CaptionSettings.from_dict({"shuffle": 1.0})
    with pytest.raises(ColipriError, match="drop_sentence must be a number from 0 to 1, not 2"):
        CaptionSettings(drop_sentence=2)
    with pytest.raises(ColipriError, match="max_sentences must be a whole number at least 0"):
        CaptionSettings(max_sentences=-1)
    with pytest.raises(ColipriError, match="exceed 1 together"):
        CaptionSettings(findings_only=0.6, impression_only=0.6)
    with pytest.raises(ColipriError, match="short_prompt must be a number from 0 to 1"):
        CaptionSettings.from_dict({"short_prompt": "often"})
