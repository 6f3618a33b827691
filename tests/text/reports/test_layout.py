"""Where sections start, in the layouts that hospitals and exporting programs produce."""

from __future__ import annotations

import time

import pytest

from colipri.text.reports.headings import known_section, names_organs
from colipri.text.reports.report import report_from_sections, report_from_text, split_sections
from colipri.text.structured_report import structure_report


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (
            "INDICATION: Chest pain COMPARISON: None FINDINGS: Small left effusion. "
            "IMPRESSION: Effusion.",
            {
                "clinical_information": "Chest pain",
                "comparison": "None",
                "findings": "Small left effusion.",
                "impression": "Effusion.",
            },
        ),
        (
            "Reason for exam: cough Comparison: None Findings: Nodule. Impression: Nodule.",
            {
                "clinical_information": "cough",
                "comparison": "None",
                "findings": "Nodule.",
                "impression": "Nodule.",
            },
        ),
        (
            "indication: chest pain findings: small effusion. the heart is normal. "
            "impression: effusion",
            {
                "clinical_information": "chest pain",
                "findings": "small effusion. the heart is normal.",
                "impression": "effusion",
            },
        ),
        (
            "INDICATION: CHEST PAIN COMPARISON: NONE FINDINGS: SMALL EFFUSION. NO NODULE.",
            {
                "clinical_information": "CHEST PAIN",
                "comparison": "NONE",
                "findings": "SMALL EFFUSION. NO NODULE.",
            },
        ),
        (
            "EXAM: CT CHEST TECHNIQUE: Axial CONCLUSION: nodule",
            {"examination": "CT CHEST", "technique": "Axial", "impression": "nodule"},
        ),
        (
            "INDICATION Chest pain. FINDINGS Small effusion. IMPRESSION Effusion.",
            {
                "clinical_information": "Chest pain.",
                "findings": "Small effusion.",
                "impression": "Effusion.",
            },
        ),
        (
            "INDICATION: pain | FINDINGS: nodule | IMPRESSION: nodule",
            {"clinical_information": "pain", "findings": "nodule", "impression": "nodule"},
        ),
    ],
)
def test_headings_inside_one_line(text: str, sections: dict[str, str]) -> None:
    assert split_sections(text) == sections


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("FINDINGS/DISCUSSION", "findings"),
        ("CT ANGIOGRAM CHEST FINDINGS", "findings"),
        ("Chest CT findings", "findings"),
        ("FINDINGS (CHEST)", "findings"),
        ("Findings of the chest", "findings"),
        ("TECHNIQUE AND FINDINGS", "findings"),
        ("FINDINGS & IMPRESSION", "findings"),
        ("ADDITIONAL FINDINGS", "findings"),
        ("CONCLUSION/RECOMMENDATION", "impression"),
        ("Preliminary impression", "impression"),
        ("COMPARISON CT CHEST", "comparison"),
        ("HISTORY/INDICATION", "clinical_information"),
        ("Clinical findings", "clinical_information"),
        ("CT CHEST WITH CONTRAST", None),
        ("No findings", None),
        ("Findings suggest pneumonia", None),
        ("study date", "administrative"),
        ("findings positive", None),
    ],
)
def test_combined_headings(heading: str, section: str | None) -> None:
    assert known_section(heading) == section


@pytest.mark.parametrize(
    "text", ["{0}: Nodule.", "INDICATION: pain\n{0}:\nNodule.", "{0}\nNodule."]
)
def test_a_combined_heading_opens_its_section(text: str) -> None:
    assert split_sections(text.format("CT ANGIOGRAM CHEST FINDINGS"))["findings"] == "Nodule."


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        (
            "COMPARISON: None\n\nLUNGS: A 5 mm nodule.\nPLEURA: Small effusion.",
            "LUNGS: A 5 mm nodule.\nPLEURA: Small effusion.",
        ),
        (
            "COMPARISON: None LUNGS: A 5 mm nodule. PLEURA: Small effusion.\nIMPRESSION: Nodule.",
            "LUNGS: A 5 mm nodule. PLEURA: Small effusion.",
        ),
        ("TECHNIQUE: CT\nThorax: nodule.\nAbdomen: normal", "Thorax: nodule.\nAbdomen: normal"),
        (
            "COMPARISON: none.\nLungs and pleura\nA nodule.\nHeart\nNormal.",
            "Lungs and pleura\nA nodule.\nHeart\nNormal.",
        ),
        (
            "COMPARISON: None.\nNodules: 4 mm RUL.\nEmphysema: mild.\nImpression: Nodule.",
            "Nodules: 4 mm RUL.\nEmphysema: mild.",
        ),
        (
            "TECHNIQUE: CT chest.\n\nThere is a nodule. No effusion.\n\nIMPRESSION: Nodule.",
            "There is a nodule. No effusion.",
        ),
        ("CLINICAL HISTORY: cough\n\nBoth lungs are clear.", "Both lungs are clear."),
    ],
)
def test_findings_without_a_heading(text: str, findings: str) -> None:
    assert split_sections(text)["findings"] == findings


@pytest.mark.parametrize(
    "text",
    [
        "CLINICAL HISTORY: cough\n\nprior pneumothorax\n\nIMPRESSION: clear",
        "CLINICAL HISTORY:\nLung: adenocarcinoma\nTECHNIQUE: CT\nIMPRESSION: clear",
        "TECHNIQUE: CT of the chest.\nThin slices.\nIMPRESSION: clear",
    ],
)
def test_the_history_does_not_become_findings(text: str) -> None:
    assert "findings" not in split_sections(text)


def test_an_aside_does_not_end_the_findings() -> None:
    text = "FINDINGS: Nodule, 5 mm. Comparison: 4 mm in 2019. No effusion."
    assert list(split_sections(text)) == ["findings"]


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (
            "INDICATION: pain<br>FINDINGS:<br/>Nodule &lt; 5 mm.<BR /><br>IMPRESSION:&nbsp;Nodule.",
            {
                "clinical_information": "pain",
                "findings": "Nodule < 5 mm.",
                "impression": "Nodule.",
            },
        ),
        (
            "<html><p><b>FINDINGS:</b> Nodule <5 mm and >3 mm.</p><p class='x'>No effusion.</p>",
            {"findings": "Nodule <5 mm and >3 mm.\n\nNo effusion."},
        ),
        (
            "INDICATION: pain\\nFINDINGS: Effusion.\\r\\nIMPRESSION: Effusion.",
            {"clinical_information": "pain", "findings": "Effusion.", "impression": "Effusion."},
        ),
        (
            "FINDINGS: Effusion._x000D_\nIMPRESSION: Effusion.",
            {"findings": "Effusion.", "impression": "Effusion."},
        ),
    ],
)
def test_line_ends_of_other_programs(text: str, sections: dict[str, str]) -> None:
    assert split_sections(text) == sections


def test_a_cell_of_findings_may_hold_headings() -> None:
    cells = {"findings": "COMPARISON: None. FINDINGS: Nodule.", "impression": "Impression: Nodule."}
    report = report_from_sections(cells)
    assert report.sections == {
        "comparison": "None.",
        "findings": "Nodule.",
        "impression": "Nodule.",
    }


@pytest.mark.parametrize("label", ["LUNGS", "Lungs and pleura", "Upper abdomen", "HEART/VESSELS"])
def test_labels_of_organs(label: str) -> None:
    assert names_organs(label)


@pytest.mark.parametrize("label", ["Patient", "Dose", "Signed by", "and", "CT of the chest", ""])
def test_other_labels(label: str) -> None:
    assert not names_organs(label)


def test_organ_templates_are_read() -> None:
    text = "COMPARISON: None\n\nLUNGS: A 5 mm nodule.\nPLEURA: No effusion."
    structured = structure_report(report_from_text(text))
    assert structured.with_polarity("positive") == ["LUNGS: A 5 mm nodule."]
    assert structured.with_polarity("negative") == ["PLEURA: No effusion."]


@pytest.mark.parametrize(
    "unit",
    ["a: ", "FINDINGS The ", "Comparison: ", "LUNGS: ", "<b", "<!--", "&", ":", "A B ", "\n\n"],
)
def test_a_report_without_end_takes_linear_time(unit: str) -> None:
    start = time.process_time()
    split_sections("TECHNIQUE: " + unit * (150_000 // len(unit)))
    assert time.process_time() - start < 5
