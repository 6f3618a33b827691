"""Sides, sizes, negations, and template collapse: worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.report_metrics.collapse import collapse_measures
from colipri.report_metrics.details import detail_metrics, grades_in, measures_in, sides_in
from colipri.report_metrics.findings import FindingLabels
from colipri.report_metrics.report_pairs import ReportPairs, judged_text, match_reports
from colipri.report_metrics.resampling import Resamples

NAMES = ["Pleural effusion", "Lung nodule", "Pneumothorax"]


def _pairs(*texts: tuple[str, str]) -> ReportPairs:
    references = {str(i): judged_text(text) for i, (text, _) in enumerate(texts)}
    return match_reports(references, {str(i): judged_text(g) for i, (_, g) in enumerate(texts)})


def _errors(reference: str, generated: str) -> dict[str, tuple[int, int]]:
    found = detail_metrics(_pairs((reference, generated)), NAMES, Resamples.of(["a"], 0))
    return {kind: (e["errors"], e["compared"]) for kind, e in found.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("reference", "generated", "side", "size", "negation"),
    [
        ("Small left pleural effusion.", "Small right pleural effusion.", (1, 1), (0, 1), (0, 1)),
        ("Bilateral effusions.", "Left pleural effusion.", (1, 1), (0, 0), (0, 1)),
        ("Large left pleural effusion.", "Small left pleural effusion.", (0, 1), (1, 1), (0, 1)),
        ("Nodule of 8 mm in the RUL.", "Right lung nodule of 9 mm.", (0, 1), (0, 1), (0, 1)),
        ("Nodule of 8 mm in the lung.", "Lung nodule of 1.4 cm.", (0, 0), (1, 1), (0, 1)),
        ("Pleural effusion.", "No pleural effusion.", (0, 0), (0, 0), (1, 1)),
        ("No pneumothorax.", "Left pneumothorax.", (0, 0), (0, 0), (1, 1)),
        ("Left pneumothorax.", "The lungs are clear.", (0, 0), (0, 0), (0, 0)),
        ("Possible pneumothorax.", "No pneumothorax.", (0, 0), (0, 0), (0, 0)),
        # which side belongs to which finding cannot be told
        (
            "Left effusion and right lung nodule of 8 mm.",
            "Right pleural effusion. Left lung nodule.",
            (0, 0),
            (0, 0),
            (0, 2),
        ),
    ],
)
def test_contradictions(
    reference: str,
    generated: str,
    side: tuple[int, int],
    size: tuple[int, int],
    negation: tuple[int, int],
) -> None:
    assert _errors(reference, generated) == {"side": side, "size": size, "negation": negation}


def test_what_a_sentence_measures() -> None:
    assert measures_in("Nodules of 8 mm and 1.2 x 0.9 cm, image 112.") == [8, 12]
    assert measures_in("12 x 9 x 7 mm mass") == [12]
    assert measures_in("3,5 cm cyst") == [35]
    assert measures_in("T12 fracture, 5 mL of contrast, 80 mmHg") == []
    assert sides_in("Bibasilar atelectasis") == {"left", "right"}
    assert sides_in("Lingular opacity") == {"left"}
    assert grades_in("Mild to moderate emphysema") == {0, 1}


def test_collapse_to_one_report() -> None:
    template = "No pleural effusion. No pneumothorax."
    pairs = _pairs(
        ("Left pleural effusion.", template),
        ("Lung nodule.", "No pneumothorax.  No pleural effusion."),
        ("Left pneumothorax.", "Lung nodule."),
    )
    reference = np.eye(3)
    generated = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0]], dtype=float)
    found = collapse_measures(pairs, FindingLabels(tuple(NAMES), reference, generated, "test"))
    assert found["generated"]["distinct_reports"] == 2
    assert found["generated"]["share_of_most_frequent"] == pytest.approx(2 / 3)
    assert found["generated"]["distinct_sentences"] == 3
    assert found["reference"]["share_of_distinct"] == 1
    assert found["findings_never_written"] == ["Pleural effusion", "Pneumothorax"]
    assert found["findings_in_references"] == 3
