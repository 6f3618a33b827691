"""The output under construction: torn lines, kills at any moment, other files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.text.reports.report import report_from_text
from colipri.text.structured_file import StructuredFile, StructuringResult
from colipri.text.structured_report import structure_report

STRUCTURED = structure_report(report_from_text("No effusion."))


@pytest.mark.parametrize("torn", [b'{"case": "b", "sec', b"x" * 200_000, b"", b"\xff\xfe"])
def test_a_torn_line_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    output = tmp_path / "o.jsonl"
    with StructuredFile(output) as file:
        file.add("a", StructuringResult(STRUCTURED, "1", "m"))
    with file.unfinished.open("ab") as stream:
        stream.write(torn)
    with StructuredFile(output) as file:  # killed again after one more line
        assert file.digest_of("a", "m") == "1"
        assert file.digest_of("b", "m") == ""
        file.add("b", StructuringResult(STRUCTURED, "2", "m"))
    with StructuredFile(output) as file:
        assert [file.digest_of(case, "m") for case in "abc"] == ["1", "2", ""]
        assert file.digest_of("a", "other") == ""
        assert file.finish(["b", "a", "c"]) == 2
    assert [json.loads(line)["case"] for line in output.read_text().splitlines()] == ["b", "a"]
    assert not file.unfinished.exists()


def test_the_last_line_of_a_case_counts(tmp_path: Path) -> None:
    other = structure_report(report_from_text("Effusion."))
    with StructuredFile(tmp_path / "o.jsonl") as file:
        file.add("a", StructuringResult(STRUCTURED, "1", "m"))
        file.add("a", StructuringResult(other, "2", "m"))
        file.finish(["a"])
    with StructuredFile(tmp_path / "o.jsonl") as file:
        assert file.digest_of("a", "m") == "2"
    assert "Effusion." in (tmp_path / "o.jsonl").read_text()
    assert not file.unfinished.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    output.write_text('{"case": "a", "sections": {}}\nnotes\n')
    with pytest.raises(ColipriError, match="line 2, is not a structured report"):
        StructuredFile(output)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ColipriError, match="cannot write"):
        StructuredFile(tmp_path / "file" / "o.jsonl")
