"""Reading and matching reports: every loss is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.report_metrics.report_pairs import (
    judged_text,
    limit_words,
    match_reports,
    read_report_texts,
)


def _texts(**texts: str) -> dict[str, object]:
    return {case: judged_text(text) for case, text in texts.items()}


def test_all_layouts_give_the_same(tmp_path: Path) -> None:
    rows = [{"case": "a", "report": "No effusion."}, {"case": "b", "report": "Nodule."}]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "g.json").write_text(json.dumps({"reports": rows}))
    (tmp_path / "g.csv").write_text("case,report\na,No effusion.\nb,Nodule.\n")
    (tmp_path / "folder").mkdir()
    for row in rows:
        (tmp_path / "folder" / f"{row['case']}.txt").write_text(row["report"])
    expected = {row["case"]: row["report"] for row in rows}
    for name in ("g.jsonl", "g.json", "g.csv", "folder"):
        assert read_report_texts(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("g.jsonl", '{"case": "a", "report": "x"}\n{"case": "a", "report": "y"}\n', "two reports"),
        ("g.jsonl", '{"case": "a"}\n', "must be an object"),
        ("g.jsonl", "no json\n", "line 1, is not valid JSON"),
        ("g.jsonl", "\n", "holds no report"),
        ("g.json", "{}", 'no list "reports"'),
        ("g.csv", "case,report\na,x\na,y\n", "two reports are called 'a'"),
    ],
)
def test_faulty_files(tmp_path: Path, name: str, content: str, what: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ColipriError, match=what):
        read_report_texts(tmp_path / name)


def test_a_missing_case_is_an_error_unless_its_count_is_said() -> None:
    references, generated = _texts(a="Effusion.", b="Nodule."), _texts(a="Effusion.", c="x")
    with pytest.raises(ColipriError, match=r"1 of 2 cases have no generated report \(b\)"):
        match_reports(references, generated)  # type: ignore[arg-type]
    empty = match_reports(references, generated, missing="empty")  # type: ignore[arg-type]
    assert empty.cases == ("a", "b")
    assert empty.generated[1].text == ""
    assert any("counted as empty" in note for note in empty.notes)
    left = match_reports(references, generated, missing="leave_out")  # type: ignore[arg-type]
    assert left.cases == ("a",)
    assert any("left out of every figure: b" in note for note in left.notes)
    assert any("no reference, not judged: c" in note for note in left.notes)


def test_no_common_case_names_both_sides() -> None:
    with pytest.raises(ColipriError, match=r"begin with a, the generated reports with x"):
        match_reports(_texts(a="Effusion."), _texts(x="y"))  # type: ignore[arg-type]


def test_empty_generated_reports_are_counted() -> None:
    pairs = match_reports(_texts(a="Effusion.", b="N."), _texts(a="", b="N."))  # type: ignore[arg-type]
    assert any("1 generated reports are empty" in note for note in pairs.notes)


def test_an_empty_reference_is_an_error() -> None:
    with pytest.raises(ColipriError, match="case a: the reference report is empty"):
        match_reports(_texts(a=" "), _texts(a="x"))  # type: ignore[arg-type]


def test_a_report_that_does_not_end() -> None:
    endless = {"a": "word " * 20_000}
    with pytest.raises(ColipriError, match="20,000 words"):
        limit_words(endless)
    assert len(limit_words(endless, 100)["a"].split()) == 100


def test_technique_and_indication_are_not_judged() -> None:
    text = "Technique: CT with contrast.\nFindings: No effusion.\nImpression: Normal."
    assert judged_text(text).text == "No effusion. Normal."
    assert judged_text(text, ["findings"]).text == "No effusion."
    assert judged_text("Plain text.", ["findings"]).text == "Plain text."
