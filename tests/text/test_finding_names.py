"""Names of findings: learned from denials, asserted in other words, never both for one report."""

from colipri.text.finding_names import FindingNames
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
