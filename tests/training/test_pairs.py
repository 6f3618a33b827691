"""Positives of a batch whose captions are short prompts."""

from __future__ import annotations

from typing import Any

from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.training.step import pairs_of


def _batch(*rows: tuple[str, str]) -> dict[str, Any]:
    return {
        "study": [f"s{i}" for i in range(len(rows))],
        "case": [f"c{i}" for i in range(len(rows))],
        "report": [structure_report(report_from_text(report)) for report, _ in rows],
        "caption": [caption for _, caption in rows],
    }


def test_short_prompts_are_positives_of_every_report_that_makes_them_true() -> None:
    batch = _batch(
        ("There is no pleural effusion. Nodule.", "no pleural effusion"),
        ("No pleural effusion is seen. Emphysema.", "Emphysema."),
        ("Small pleural effusion.", "small pleural effusion"),
        (
            "No pleural effusion in the left hemithorax.",
            "no pleural effusion in the left hemithorax",
        ),
    )
    assert pairs_of(batch).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
