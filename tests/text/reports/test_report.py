"""Reading reports: encodings, headings, JSON layouts, odd input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.text.reports.report import (
    read_report,
    report_from_sections,
    report_from_text,
    section_name,
    split_sections,
)

TEXT = "Findings:\nCafé-au-lait spots, 3.5 µm \u2013 “normal”.\nImpression: Normal."
EXPECTED = {"findings": "Café-au-lait spots, 3.5 µm \u2013 “normal”.", "impression": "Normal."}


@pytest.mark.parametrize(
    ("encoding", "named", "is_noted"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8-sig", False),
        ("utf-16", "utf-16", False),
        ("utf-16-le", "utf-16-le", True),
        ("utf-16-be", "utf-16-be", True),
        ("utf-32", "utf-32", False),
        ("cp1252", "cp1252", True),
    ],
)
def test_encodings_give_the_same_text(
    tmp_path: Path, encoding: str, named: str, is_noted: bool
) -> None:
    file = tmp_path / "report.txt"
    file.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    report = read_report(file)
    assert report.sections == EXPECTED
    assert report.encoding == named
    assert bool(report.notes) == is_noted


def test_latin1_bytes_that_windows_1252_lacks(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_bytes(b"Normal\x81 lungs, caf\xe9.")
    report = read_report(file)
    assert report.sections == {"": "Normal lungs, café."}
    assert report.encoding == "latin-1"


def test_doubly_encoded_text_is_kept_and_noted(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_bytes("café".encode().decode("cp1252").encode("utf-8"))
    report = read_report(file)
    assert report.sections == {"": "cafÃ©"}
    assert "stored as Windows-1252" in report.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS: Clear lungs.\nIMPRESSION: Normal.",
        "Findings\nClear lungs.\n\nImpression\nNormal.",
        "**Findings**\nClear lungs.\n**Impression:** Normal.",
        "**Findings:**\n\nClear lungs.\n\n**Conclusion**\n\nNormal.",
        "# Findings\nClear lungs.\n## Impression\nNormal.",
        "FINDINGS -\nClear lungs.\nIMPRESSION - Normal.",
        "1. FINDINGS: Clear lungs.\n2. CONCLUSION: Normal.",
        "Findings: Clear lungs. Impression: Normal.",
        "REPORT:\nClear lungs.\nOPINION\nNormal.",
        "__FINDINGS__ : Clear lungs.\nFinal impression:\nNormal.",
        "findings : Clear lungs.\r\nimpression : Normal.",
        "Bulgular: Clear lungs.\nSONUÇ: Normal.",
        "Befund:\nClear lungs.\nBeurteilung:\nNormal.",
    ],
)
def test_headings_in_many_styles(text: str) -> None:
    assert split_sections(text) == {"findings": "Clear lungs.", "impression": "Normal."}


def test_other_sections_have_their_names() -> None:
    text = (
        "CT CHEST\nREASON FOR EXAM: cough\nPROCEDURE: helical CT\nCOMPARISON: None.\n"
        "FINDINGS: Clear.\nRecommendations: none\nADDENDUM: Signed."
    )
    assert list(split_sections(text)) == [
        "",
        "clinical_information",
        "technique",
        "comparison",
        "findings",
        "recommendation",
        "addendum",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Findings suggest pneumonia.",
        "The impression is that of fibrosis.",
        "No findings: the study is normal.",
        "Comparison with the previous CT shows growth.",
        "Lungs: clear.\nHeart: normal.",
    ],
)
def test_words_of_headings_inside_sentences_are_no_headings(text: str) -> None:
    assert split_sections(text) == {"": text}


def test_a_section_that_occurs_twice_keeps_both_texts() -> None:
    text = "FINDINGS: One.\nIMPRESSION: Two.\nFINDINGS: Three."
    assert split_sections(text) == {"findings": "One.\nThree.", "impression": "Two."}


def test_json_layouts(tmp_path: Path) -> None:
    content = {
        "Findings_EN": ["Clear lungs.", "No effusion."],
        "Impressions_EN": "Normal.",
        "ClinicalInformation_EN": None,
        "Technique_EN": "   ",
        "Score": 3,
        "organs": {"liver": "Normal.", "spleen": ["Large.", "Calcified."]},
        "": "FINDINGS: More.",
    }
    file = tmp_path / "report.json"
    file.write_bytes(json.dumps(content).encode("utf-8-sig"))
    assert read_report(file).sections == {
        "findings": "Clear lungs.\nNo effusion.\nMore.",
        "impression": "Normal.",
        "score": "3",
        "organs": "liver: Normal.\nspleen: Large.\nCalcified.",
    }


def test_json_text_is_split_at_its_headings(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(TEXT), encoding="utf-8")
    assert read_report(file).sections == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "must be an object"),
        ("12", "must be an object"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_json_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "case_007.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ColipriError, match=message) as error:
        read_report(file)
    assert "case_007.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match=r"absent\.txt cannot be read"):
        read_report(tmp_path / "absent.txt")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \r\n\t "])
@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_empty_files_are_empty_reports(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"report{suffix}"
    file.write_bytes(content)
    report = read_report(file)
    assert report.is_empty
    assert report.text == ""


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"Findings:\nImpression:\n", b"\xe2\x80\x8b"])
def test_control_characters_and_bare_headings_are_no_text(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "report.txt"
    file.write_bytes(content)
    assert read_report(file).is_empty


def test_control_characters_go_and_text_stays() -> None:
    report = report_from_text(
        "No\x00 eff\x1busion.\x0bHeart\u00a0normal\ufeff.\x85Lungs\u200b clear."
    )
    assert report.sections[""] == "No effusion.\nHeart normal.\nLungs clear."


def test_emoji_and_joiners_survive() -> None:
    text = "Nodule 👩‍⚕️ می‌خواهم."
    assert report_from_text(text).sections == {"": text}


def test_lone_surrogates_do_not_reach_files(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text('{"findings": "Nodule \\ud83d here."}', encoding="utf-8")
    text = read_report(file).sections["findings"]
    assert text.encode("utf-8").decode("utf-8").startswith("Nodule")


def test_section_names() -> None:
    assert section_name("FINDINGS AND IMPRESSION") == "findings"
    assert (
        section_name("Kar\u015f\u0131la\u015ft\u0131rma")
        == section_name("KARŞILAŞTIRMA")
        == "comparison"
    )
    assert section_name("Résultats") == section_name("RESULTATS") == "findings"
    assert section_name("Bone window (1 mm)") == "bone_window_1_mm"


def test_unknown_json_values_are_refused_by_name() -> None:
    with pytest.raises(ColipriError, match="section 'findings' contains a set"):
        report_from_sections({"findings": {"a"}})
