"""Findings that reports assert, doubt, deny or do not mention."""

from __future__ import annotations

import pytest

from colipri.dataset_conversion.ct_rate.source import FINDINGS
from colipri.text.report_findings import finding_states, findings_named, has_expressions
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


def _states(text: str, *names: str) -> list[str]:
    return list(finding_states(structure_report(report_from_text(text)), names).values())


@pytest.mark.parametrize(
    ("sentence", "finding", "state"),
    [
        ("Small left pleural effusion.", "Pleural effusion", "present"),
        ("No pleural effusion or pneumothorax.", "Pleural effusion", "absent"),
        ("Possible small effusion on the right.", "Pleural effusion", "uncertain"),
        ("The lungs are clear.", "Pleural effusion", "not_mentioned"),
        ("Pericardial effusion.", "Pleural effusion", "not_mentioned"),
        ("Pericardial effusion.", "Pericardial effusion", "present"),
        ("Heart size is increased.", "Cardiomegaly", "present"),
        ("Heart size is normal.", "Cardiomegaly", "not_mentioned"),
        ("Calcified plaques in the coronary arteries.", "Arterial wall calcification", None),
        ("Calcific atheroma plaques in the aorta.", "Arterial wall calcification", "present"),
        ("Thyroid nodule of 8 mm.", "Lung nodule", "not_mentioned"),
        ("Nodule of 8 mm in the right upper lobe.", "Lung nodule", "present"),
        ("Subcutaneous emphysema.", "Emphysema", "not_mentioned"),
        ("Centrilobular emphysema.", "Emphysema", "present"),
        ("Ground-glass areas in both lungs.", "Lung opacity", "present"),
        ("Sliding type hiatal hernia.", "Hiatal hernia", "present"),
        ("No enlarged lymph nodes.", "Lymphadenopathy", "absent"),
        ("Cyst in the left kidney.", "renal_cyst", "present"),
        ("A rare sign is seen: kissing ovaries.", "Kissing ovaries", "present"),
    ],
)
def test_states(sentence: str, finding: str, state: str | None) -> None:
    (found,) = _states(sentence, finding)
    assert found == (state or "not_mentioned")


def test_an_assertion_wins_over_a_denial_elsewhere() -> None:
    assert _states("No nodule on the left. Nodule in the right lung.", "Lung nodule") == ["present"]


def test_history_and_technique_do_not_count() -> None:
    text = "Clinical information: pneumothorax.\nFindings: The lungs are clear."
    assert _states(text, "Pneumothorax") == ["not_mentioned"]


def test_the_findings_of_ct_rate_are_listed() -> None:
    assert [name for name in FINDINGS if not has_expressions(name)] == []


def test_a_sentence_may_name_several() -> None:
    names = ("Consolidation", "Atelectasis", "Emphysema")
    assert findings_named("Consolidation and atelectasis.", names) == names[:2]
