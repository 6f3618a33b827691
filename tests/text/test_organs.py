"""Which organ system a sentence is about."""

from __future__ import annotations

import pytest

from colipri.text.organs import by_organ, organ_of
from colipri.text.report import report_from_text
from colipri.text.structuring import structure_report


@pytest.mark.parametrize(
    ("sentence", "organ"),
    [
        ("Small left effusion.", "pleura"),
        ("Pericardial effusion.", "heart"),
        ("Coronary artery calcifications.", "heart"),
        ("The pulmonary arteries are patent.", "vessels"),
        ("Acute pulmonary embolism.", "vessels"),
        ("Nodule in the right upper lobe.", "lungs"),
        ("Nodule in the left adrenal gland.", "adrenals"),
        ("Thyroid nodule.", "thyroid"),
        ("Emphysema.", "lungs"),
        ("Enlarged mediastinal lymph nodes.", "mediastinum"),
        ("Fracture of the sternum.", "bones"),
        ("Compression fracture of T12.", "bones"),
        ("Gallstones.", "biliary"),
        ("Left hydronephrosis.", "kidneys"),
        ("Normal study.", "other"),
    ],
)
def test_organ_of(sentence: str, organ: str) -> None:
    assert organ_of(sentence) == organ


def test_headings_of_organs_hold_until_the_next() -> None:
    text = (
        "TECHNIQUE: CT of the liver.\nFINDINGS:\nPLEURA: Normal. Nothing acute.\n"
        "HEART: Enlarged. Small effusion in the pleura.\nIMPRESSION: Unremarkable."
    )
    organs = by_organ(structure_report(report_from_text(text)))
    assert organs["pleura"]["negative"] == ["PLEURA: Normal.", "Nothing acute."]
    assert organs["pleura"]["positive"] == ["Small effusion in the pleura."]
    assert organs["heart"]["positive"] == ["HEART: Enlarged."]
    assert organs["other"]["negative"] == ["Unremarkable."]
    assert "liver" not in organs
