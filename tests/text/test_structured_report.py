"""Structured reports: layout, order of writing, JSON, and reports that nobody would write."""

from __future__ import annotations

import json

import pytest

from colipri.common.errors import ColipriError
from colipri.text.reports.report import Report, report_from_text
from colipri.text.structured_report import StructuredReport, structure_report

TEXT = """CLINICAL INFORMATION: History of pneumothorax.
TECHNIQUE: CT with contrast.
FINDINGS: Small left effusion, no pneumothorax. The heart is normal.
A nodule may be present. Evaluation is limited by motion.
IMPRESSION:
1. Small effusion."""


def test_layout() -> None:
    structured = structure_report(report_from_text(TEXT))
    assert structured.sections == {
        "clinical_information": {
            "positive": [],
            "negative": [],
            "uncertain": [],
            "neutral": ["History of pneumothorax."],
        },
        "technique": {
            "positive": [],
            "negative": [],
            "uncertain": [],
            "neutral": ["CT with contrast."],
        },
        "findings": {
            "positive": ["Small left effusion,"],
            "negative": ["no pneumothorax.", "The heart is normal."],
            "uncertain": ["A nodule may be present."],
            "neutral": ["Evaluation is limited by motion."],
        },
        "impression": {
            "positive": ["1. Small effusion."],
            "negative": [],
            "uncertain": [],
            "neutral": [],
        },
    }


def test_order_of_writing_is_kept() -> None:
    structured = structure_report(report_from_text(TEXT))
    assert [sentence.text for sentence in structured.sentences("findings")] == [
        "Small left effusion,",
        "no pneumothorax.",
        "The heart is normal.",
        "A nodule may be present.",
        "Evaluation is limited by motion.",
    ]
    assert structured.text.split() == report_from_text(TEXT).text.split()
    assert structured.with_polarity("negative") == ["no pneumothorax.", "The heart is normal."]


def test_findings_of_the_clinical_question_are_not_findings() -> None:
    structured = structure_report(report_from_text("INDICATION: Large pneumothorax."))
    assert structured.with_polarity("positive") == []


def test_json_round_trip() -> None:
    structured = structure_report(report_from_text(TEXT))
    line = structured.to_json()
    assert "\n" not in line
    assert StructuredReport.from_json(line) == structured


def test_a_report_structured_elsewhere_has_no_order() -> None:
    content = {
        "case": "case_1",
        "sections": {"findings": {"negative": ["No nodule."], "positive": ["Effusion."]}},
    }
    structured = StructuredReport.from_json(json.dumps(content))
    assert [sentence.text for sentence in structured.sentences()] == ["Effusion.", "No nodule."]


def test_an_order_that_does_not_fit_loses_nothing() -> None:
    sections = {"findings": {"positive": ["A.", "B."], "negative": ["C."]}}
    structured = StructuredReport.from_dict({"sections": sections, "order": {"findings": "nnx?p"}})
    assert sorted(sentence.text for sentence in structured.sentences()) == ["A.", "B.", "C."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "needs an object 'sections'"),
        ('{"sections": {"findings": []}}', "must be an object"),
        ('{"sections": {"findings": {"positive": "x"}}}', "must be a list"),
        ('{"sections": {"findings": {"positive": [1]}}}', "must be a list"),
        ('{"sections": {}, "order": []}', "'order' must be an object"),
    ],
)
def test_damaged_lines_are_named(text: str, message: str) -> None:
    with pytest.raises(ColipriError, match=message):
        StructuredReport.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "Normal",
        "?",
        "1.",
        "...",
        "😀🫁",
        "FINDINGS:\n\nIMPRESSION:\n\nNormal.",
        "No effusion. No nodule. No mass.",
        "Sağ akciğerde nodül izlendi. Plevral efüzyon yok.",
        "右肺に結節あり。胸水なし。",
        "Узел в правом лёгком. Выпота нет.",
        "عقدة في الرئة اليمنى. لا انصباب؟",
        "Rundherd im rechten Oberlappen. Kein Erguss.",
        "\u202eright-to-left\u202c override",
        "a\x00b\x1bc",
        "<script>alert('x')</script> & %s {0} \\n",
        "nodule " * 20_000,
        "No effusion. A nodule is seen. " * 3_500,
        ",;:()[]{}" * 500,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_odd_reports_neither_crash_nor_lose_text(text: str) -> None:
    report = report_from_text(text)
    structured = structure_report(report)
    assert "".join(structured.text.split()) == "".join(report.text.split())
    assert StructuredReport.from_json(structured.to_json()) == structured


def test_other_languages_are_neutral_rather_than_wrong() -> None:
    structured = structure_report(report_from_text("Befund: Kein Erguss. Rundherd rechts."))
    assert structured.with_polarity("neutral") == ["Kein Erguss.", "Rundherd rechts."]


def test_empty_report() -> None:
    structured = structure_report(Report({}))
    assert structured.is_empty
    assert structured.text == ""
    assert StructuredReport.from_json(structured.to_json()) == structured
