"""Answers of a model held against the report: nothing that the report does not say gets through."""

from __future__ import annotations

import json

import pytest

from colipri.text.llm.answer import MalformedAnswerError, read_answer, support
from colipri.text.llm.prompt import ReportPart, answer_schema, messages_of, parts_of
from colipri.text.polarity.tagging import POLARITIES
from colipri.text.reports.report import report_from_sections

PART = ReportPart(
    {
        "findings": [
            "LUNGS: Small left effusion, but no pneumothorax or mass.",
            "1. The heart is normal.",
            "No  nodule.".replace("  ", " "),
        ],
        "impression": ["Effusion."],
    }
)


def pairs(findings: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    clauses, _ = support(PART, findings)  # type: ignore[arg-type]
    return [(clause.text, clause.polarity) for clause in clauses["findings"]]


def unsupported(*texts: str) -> int:
    findings = {"findings": [(text, "positive") for text in texts]}
    findings["impression"] = [("Effusion.", "positive")]
    return support(PART, findings)[1].unsupported  # type: ignore[arg-type]


def test_supported_findings_are_kept_as_the_report_writes_them() -> None:
    findings = {
        "findings": [
            ("lungs:  small LEFT effusion", "positive"),
            ("No pneumothorax or mass", "negative"),
            ("the heart is normal", "negative"),
            ("No nodule.", "negative"),
        ]
    }
    assert pairs(findings) == [
        ("LUNGS: Small left effusion,", "positive"),
        ("but no pneumothorax or mass.", "negative"),
        ("1. The heart is normal.", "negative"),
        ("No nodule.", "negative"),
    ]
    _, counts = support(PART, findings)  # type: ignore[arg-type]
    assert (counts.returned, counts.accepted, counts.unsupported) == (4, 4, 0)
    assert (counts.agreeing, counts.omitted, counts.contradictory) == (4, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "Large right effusion.",  # not there
        "pneumothorax",  # words of a denial without the denial
        "mass",
        "pneumothorax or mass",
        "nodule",
        "heart",
        "left effusion",  # half a statement
        "Small left effusion, but no",
        "Kleiner Erguss links",  # translated
        "Small left effusions, but no pneumothorax or mass.",  # corrected
        "Effusion.",  # of another section, and only a part here
        "The heart is normal. There is a tumour.",
    ],
)
def test_what_the_report_does_not_say_is_rejected(text: str) -> None:
    assert unsupported(text) == 1


def test_whole_sentences_returned_together_are_taken_apart() -> None:
    assert unsupported("The heart is normal. No nodule.") == 0


def test_a_clause_given_two_polarities_is_contradictory() -> None:
    findings = {
        "findings": [("No nodule.", "negative"), ("No nodule.", "positive")],
        "impression": [("Effusion.", "positive")],
    }
    clauses, counts = support(PART, findings)  # type: ignore[arg-type]
    assert counts.contradictory == 1
    assert ("No nodule.", "neutral") in [tuple(c) for c in clauses["findings"]]


def test_a_plain_denial_is_never_positive() -> None:
    """As a small model called "No pleural effusion."; models are asked about doubtful cases."""
    part = ReportPart({"findings": ["There is no nodule.", "No change in the mass.", "Cyst."]})
    findings = {"findings": [(text, "positive") for text in part.sections["findings"]]}
    clauses, counts = support(part, findings)  # type: ignore[arg-type]
    assert [c.polarity for c in clauses["findings"]] == ["neutral", "positive", "positive"]
    assert counts.contradictory == 1


def test_what_is_not_mentioned_is_kept_as_neutral() -> None:
    clauses, counts = support(PART, {"impression": [("Effusion", "positive")]})
    assert counts.omitted == 4
    assert {clause.polarity for clause in clauses["findings"]} == {"neutral"}
    written = " ".join(clause.text for clause in clauses["findings"])
    assert written == " ".join(PART.sections["findings"])


def test_a_sentence_that_stands_twice_may_be_returned_once() -> None:
    part = ReportPart({"findings": ["No nodule.", "Heart normal.", "No nodule."]})
    clauses, counts = support(part, {"findings": [("no nodule", "negative")]})
    assert [c.polarity for c in clauses["findings"]] == ["negative", "neutral", "negative"]
    assert counts.omitted == 1


def test_an_answer_without_any_supported_sentence_is_malformed() -> None:
    with pytest.raises(MalformedAnswerError, match="no sentence of the answer"):
        support(PART, {"findings": [("Everything is fine.", "negative")]})


def test_text_around_the_object_and_missing_lists_are_forgiven() -> None:
    content = {"sections": {"impression": {"positive": ["Effusion."]}}}
    expected = {"impression": [("Effusion.", "positive")]}
    body = json.dumps(content)
    for answer in (body, f"```json\n{body}\n```", f"<think>{{hm}}</think>Here:\n{body} Done."):
        assert read_answer(answer, PART) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sorry, I cannot.",
        '{"sections": {"findings": {"positive": ["Eff',
        "[]",
        '{"findings": {}}',
        '{"sections": [], "x": 1}',
        '{"sections": {"lungs": {"positive": []}}}',
        '{"sections": {"findings": {"present": []}}}',
        '{"sections": {"findings": []}}',
        '{"sections": {"findings": {"positive": "Effusion."}}}',
        '{"sections": {"findings": {"positive": [1]}}}',
        '{"sections": {"findings": {"positive": [["a"]]}}, "note": ""}',
        '{"a":' * 50_000 + "1" + "}" * 50_000,
    ],
)
def test_other_layouts_are_malformed(answer: str) -> None:
    with pytest.raises(MalformedAnswerError):
        read_answer(answer, PART)


def test_only_describing_sections_are_asked_about() -> None:
    report = report_from_sections(
        {
            "patient name": "Jane Roe",
            "history": "Cough.",
            "technique": "CT.",
            "findings": "Effusion.",
            "": "No nodule.",
        }
    )
    (part,) = parts_of(report)
    sent = json.dumps(messages_of(part)[3:])
    assert "Effusion." in sent and "No nodule." in sent
    assert not any(word in sent for word in ("Jane", "Cough", "CT."))
    schema = answer_schema(part)["properties"]["sections"]
    assert set(schema["properties"]) == {"findings", "report"}
    assert set(schema["properties"]["findings"]["properties"]) == set(POLARITIES)


def test_the_example_of_the_prompt_is_a_right_answer() -> None:
    messages = messages_of(PART)
    part = ReportPart(
        {
            "findings": [
                "Small left effusion, but no pneumothorax.",
                "The heart is normal.",
                "A nodule cannot be excluded.",
            ],
            "impression": ["Small left effusion.", "Follow-up is advised."],
        }
    )
    assert messages[1]["content"] in messages_of(part)[3]["content"]
    clauses, counts = support(part, read_answer(messages[2]["content"], part))
    assert (counts.unsupported, counts.omitted, counts.contradictory) == (0, 0, 0)
    assert counts.agreeing == counts.accepted == 6
    assert [c.polarity for c in clauses["impression"]] == ["positive", "neutral"]


def test_long_reports_are_cut_at_sentences() -> None:
    text = " ".join(f"Nodule {i} in the left lung." for i in range(4000))  # 24,000 words
    parts = list(parts_of(report_from_sections({"findings": text, "impression": "Nodules."})))
    assert len(parts) > 10
    assert max(len(part.text) for part in parts) < 7000
    assert " ".join(part.text for part in parts) == text + " Nodules."


@pytest.mark.parametrize("text", ["x " * 20_000, "no effusion, " * 10_000, "." * 50_000])
def test_a_sentence_without_end_takes_little_time(text: str) -> None:
    part = ReportPart({"findings": [" ".join(text.split())]})
    clauses, _ = support(part, {"findings": [(text, "neutral")]})
    assert " ".join(c.text for c in clauses["findings"]) == " ".join(text.split())
