"""One function reads structured reports: every reader of raw cases sees an edited file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from preprocessing.small_dataset import CONFIGURATION, NAME, make_plans, write_raw_dataset

from colipri.common.errors import ColipriError
from colipri.experiment_planning.fingerprint import extract_fingerprint
from colipri.inference.labelled_cases import collect_cases
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.structured_reports import (
    STRUCTURED_REPORTS,
    load_structured_report,
    load_structured_reports,
)
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.structure_reports import main as structure_reports


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    return write_raw_dataset(workspace.raw)


def _edit(raw: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Structure the reports of the data set, then change every line."""
    path = raw / STRUCTURED_REPORTS
    assert structure_reports(["-i", str(raw), "-o", str(path), "-np", "1"]) == 0
    records = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _uncertain(record: dict[str, Any]) -> dict[str, Any]:
    sentence = f"Perhaps something in {record['case']}."
    return {**record, "sections": {"findings": {"uncertain": [sentence]}}, "order": {}}


def test_fingerprint_preprocessing_and_raw_evaluation_see_an_edited_file(
    raw: Path, workspace: Workspace
) -> None:
    before = extract_fingerprint(NAME, num_processes=1)["text"]
    assert before["polarity"]["uncertain"] == 0
    _edit(raw, _uncertain)
    after = extract_fingerprint(NAME, num_processes=1)["text"]
    assert after["polarity"]["uncertain"] == after["num_sentences"] == before["num_reports"] > 0
    preprocess_dataset(901, make_plans(), num_processes=1)
    store = (
        workspace.preprocessed / NAME / make_plans().configuration(CONFIGURATION).data_identifier
    )
    lines = map(json.loads, (store / "reports.jsonl").read_text().splitlines())
    stored = {line["case"]: line["sections"] for line in lines}
    predictor: Any = None  # images are not read
    raw_cases = collect_cases(predictor, NAME, "raw").cases.values()
    found = {c.identifier: report.sections for c in raw_cases if (report := c.report())}
    assert found == stored and len(found) > 1
    assert all(text["findings"]["uncertain"] for text in found.values())


def test_a_report_that_changed_is_an_error_for_every_reader(raw: Path) -> None:
    path = _edit(raw, dict)
    (raw / "reportsTr" / "a.txt").write_text("FINDINGS: Written after the reports were structured.")
    message = rf"a\.txt is not in {path} .*run colipri_structure_reports -i {raw}"
    case = next(c for c in load_raw_dataset(NAME).cases if c.identifier == "a")
    with pytest.raises(ColipriError, match=message):
        load_structured_report(case)
    with pytest.raises(ColipriError, match=message):
        extract_fingerprint(NAME, num_processes=1)
    with pytest.raises(ColipriError, match=message):
        preprocess_dataset(901, make_plans(), num_processes=1)
    with pytest.raises(ColipriError, match=message):
        collect_cases(Any, NAME, "raw").cases["a"].report()  # type: ignore[arg-type]
    issues = [i for i in verify_dataset(NAME, 1).issues if i.code == "report_not_structured"]
    assert [issue.case for issue in issues] == ["a"]


def test_the_verification_looks_again_after_the_file_has_changed(raw: Path) -> None:
    def codes() -> set[str]:
        return {issue.code for issue in verify_dataset(NAME, 1).issues}

    assert "report_not_structured" not in codes()
    path = _edit(raw, dict)
    assert "report_not_structured" not in codes()
    path.write_text("")
    assert "report_not_structured" in codes()
    path.unlink()
    assert "report_not_structured" not in codes()


def test_a_damaged_file_is_named_with_its_line(raw: Path) -> None:
    path = _edit(raw, dict)
    path.write_text(path.read_text() + "{}\n")
    number = len(path.read_text().splitlines())
    case = next(case for case in load_raw_dataset(NAME).cases if case.report)
    with pytest.raises(ColipriError, match=f"line {number}, was not written by colipri_structure"):
        load_structured_report(case)


def test_reconstructions_of_a_study_count_once_and_problems_are_by_case(raw: Path) -> None:
    cases = load_raw_dataset(NAME).cases
    with_report = [case for case in cases if case.report is not None]
    reports, problems = load_structured_reports(cases, 1)
    assert problems == {} and len(reports) == len({case.study for case in with_report})
    (raw / "reportsTr" / "a.txt").write_text(" \n")
    reports, problems = load_structured_reports(cases, 1)
    assert list(problems) == ["a"] and "a.txt is empty" in problems["a"]
