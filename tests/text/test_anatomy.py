"""Anatomy in text: organ systems of sentences, sides, and texts for mirrored images."""

from __future__ import annotations

from pathlib import Path

import pytest

from colipri.text.anatomy import by_organ, can_swap_sides, names_a_side, organ_of, swap_sides
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report


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


@pytest.mark.parametrize(
    "text",
    [
        "Left pleural effusion.",
        "RIGHT LUNG: clear.",
        "A left-sided effusion.",
        "Right-sided aortic arch.",
        "Shift to the left.",
        "Nodule in the RUL.",
        "Atelectasis of the LLL and RML.",
        "Lt. kidney cyst.",
        "rt lower lobe",
        "L lung nodule.",
        "Effusion (R).",
        "Effusions, R>L.",
        "Leftward shift of the mediastinum.",
        "Middle lobe atelectasis.",
        "Lingular scar.",
        "Dextroscoliosis.",
        "Dextrocardia.",
        "Situs inversus.",
        "Right ventricle is dilated.",
        "Rundherd im linken Oberlappen.",
        "Sağ akciğerde nodül.",
        "Nodule du lobe supérieur droit",
        "Nódulo en el pulmón izquierdo.",
    ],
)
def test_sides(text: str) -> None:
    assert names_a_side(text)


@pytest.mark.parametrize(
    "text",
    [
        "Bilateral effusions.",
        "Both lungs are clear.",
        "A right-handed woman.",
        "Fracture of L1 and L4.",
        "The drain was left in place.",
        "The lesion was left untreated.",
        "Unilateral effusion.",
        "Cleft sternum.",
        "Bright nodule, upright position.",
        "Angulated at right angles.",
        "RLLX protocol.",
        "",
        "R2 = 0.9",
    ],
)
def test_no_sides(text: str) -> None:
    assert not names_a_side(text)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("Left effusion.", "Right effusion."),
        ("LEFT LUNG AND right kidney", "RIGHT LUNG AND left kidney"),
        ("Nodule in the RUL, none in the LLL.", "Nodule in the LUL, none in the RLL."),
        ("right-sided, Lt. and rt", "left-sided, Rt. and lt"),
        ("Effusions, R>L (L) and L lung", "Effusions, L>R (R) and R lung"),
        ("Leftward shift, dextroscoliosis", "Rightward shift, levoscoliosis"),
        ("right-handed, left drain left in place", "right-handed, right drain left in place"),
        ("im linken Lappen, sağ akciğer", "im rechten Lappen, sol akciğer"),
        ("Bilateral effusions, L1 fracture", "Bilateral effusions, L1 fracture"),
        ("", ""),
    ],
)
def test_swap(text: str, mirrored: str) -> None:
    assert swap_sides(text) == mirrored
    assert swap_sides(mirrored) == text


def test_swapping_twice_gives_the_text_of_real_captions(shared_data: Path) -> None:
    file = shared_data / "roco_ccby_captions" / "chest_ct_captions_ccby.tsv"
    captions = [line.split("\t")[4] for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    for caption in captions:
        assert swap_sides(swap_sides(caption)) == caption
    changed = [caption for caption in captions if swap_sides(caption) != caption]
    assert 150 < len(changed) < 400
    assert all(names_a_side(caption) for caption in changed)


def test_parts_that_exist_on_one_side_cannot_be_swapped() -> None:
    assert can_swap_sides("Left effusion.")
    assert not can_swap_sides("Right effusion, scar in the lingula.")
    assert not can_swap_sides("Nodule in the RML.")
