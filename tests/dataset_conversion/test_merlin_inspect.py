"""Merlin and INSPECT: small trees with their files and column names, made from real scans."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from conversion import real_scans, report_rows, summary

from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main
from colipri.text.reports.report import read_report

FINDINGS = (
    'FINDINGS: Liver: 3.5 cm cyst, unchanged.\nNo ascites.\nIMPRESSION: 1. "Simple" cyst, benign.'
)


def _convert(name: str, source: Path, *more: str, code: int = 0) -> RawDataset:
    arguments = [name, "-i", str(source), "-d", "103", "-n", "Set", "-np", "1", *more]
    assert main(arguments) == code
    return load_raw_dataset(103) if code == 0 else RawDataset("", source, {}, ())


def _table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [header, *rows]
        )


@pytest.fixture
def merlin(tmp_path: Path) -> Path:
    """reports_final.xlsx with a report that runs on over lines, and a study number as number."""
    from openpyxl import Workbook

    folder = tmp_path / "merlinabdominalctdataset"
    (folder / "merlin_data").mkdir(parents=True)
    book = Workbook()
    book.active.append(["study id", "Findings", "Split", "Few shot"])
    rows = (
        ["AC1", FINDINGS, "train", 0],
        [4211, "Normal.", "val", 0],
        ["AC3", "Ascites.", "test", 1],
    )
    for row, scan in zip(rows, real_scans(), strict=False):
        book.active.append(row)
        shutil.copy(scan, folder / "merlin_data" / f"{row[0]}.nii.gz")
    book.save(folder / "reports_final.xlsx")
    _table(
        folder / "zero_shot_findings_disease_cls.csv",
        ["study id", "ascites", "renal_cyst"],
        [["AC1", 0, -1], [4211, -1, -1], ["AC3", 1, 0]],
    )
    return folder


def test_merlin(workspace: Workspace, merlin: Path) -> None:
    data = _convert("merlin", merlin)
    assert [(case.identifier, case.split) for case in data.cases] == [
        ("4211", "val"), ("AC1", "train"), ("AC3", "test"),
    ]  # fmt: skip
    assert data.finding_names == ["ascites", "renal_cyst"]
    assert [case.findings for case in data.cases] == [
        {"ascites": None, "renal_cyst": None},
        {"ascites": 0, "renal_cyst": None},
        {"ascites": 1, "renal_cyst": 0},
    ]
    report = data.cases[1].report
    assert report is not None
    sections = read_report(report).sections
    assert sections["findings"].endswith("No ascites.")
    assert sections["impression"] == '1. "Simple" cyst, benign.'
    assert data.cases[0].images == (merlin / "merlin_data" / "4211.nii.gz",)
    result = verify_dataset("Dataset103_Set", 1)
    assert not result.errors, result.to_text()


def test_merlin_bad_rows(
    workspace: Workspace, merlin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = merlin.parent / "reports.csv"
    rows = [["AC1", "a", "train"], ["AC1", "b", "train"], ["AC3", "c", "tset"], ["AC9", "d", "val"]]
    _table(reports, ["study id", "Findings", "Split"], rows)
    _convert("merlin", merlin, "--reports", str(reports), code=1)
    assert "3 of 4 rows have problems" in capsys.readouterr().err
    data = _convert("merlin", merlin, "--reports", str(reports), "--keep_going")
    assert summary(data.folder)["reasons"] == {
        "the case appears twice": 1,
        "the split is not train, val or test": 1,
        "the image does not exist": 1,
    }


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (["study_id", "Findings", "Split"], "no column 'study id'; did you mean 'study_id'"),
        (["study id", "Finding", "Split"], "no column 'Findings'; did you mean 'Finding'"),
    ],
)
def test_merlin_other_columns(
    workspace: Workspace,
    merlin: Path,
    header: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _table(merlin / "r.csv", header, [["AC1", "a", "train"]])
    _convert("merlin", merlin, "--reports", str(merlin / "r.csv"), code=1)
    assert message in capsys.readouterr().err


@pytest.fixture
def inspect(tmp_path: Path) -> Path:
    """The files of the folder full/ (release of June 2025)."""
    folder = tmp_path / "full"
    (folder / "CTPA").mkdir(parents=True)
    for image, scan in zip(("PE1a", "PE1b", "PE2c"), real_scans(), strict=False):
        shutil.copy(scan, folder / "CTPA" / f"{image}.nii.gz")
    _table(
        folder / "impressions_20250611.tsv",
        ["impression_id", "impressions"],
        [[1, "1. Acute PE.\n2. Effusion."], [2, "No PE."], [3, "Chronic PE."], [4, "lost"]],
    )
    _table(
        folder / "study_mapping_20250611.tsv",
        ["impression_id", "image_id", "person_id"],
        [[1, "PE1a", 77], [2, "PE1b", 77], [3, "PE2c", 78]],
    )
    _table(folder / "splits_20250611.tsv", ["impression_id", "split"],
           [[1, "train"], [2, "train"], [3, "valid"]])  # fmt: skip
    _table(
        folder / "labels_20250611.tsv",
        ["impression_id", "pe_positive_nlp", "pe_acute", "12_month_mortality"],
        [[1, "True", 1, "Censored"], [2, "False", 0, "True"], [3, "True", "Censored", "False"]],
    )
    return folder


def test_inspect(workspace: Workspace, inspect: Path) -> None:
    data = _convert("inspect", inspect, "--keep_going")
    assert [(c.identifier, c.subject, c.study, c.split) for c in data.cases] == [
        ("PE1a", "77", "1", "train"), ("PE1b", "77", "2", "train"), ("PE2c", "78", "3", "val"),
    ]  # fmt: skip
    assert data.finding_names == ["Pulmonary embolism", "Acute pulmonary embolism"]
    assert [list(case.findings.values()) for case in data.cases] == [[1, 1], [0, 0], [1, None]]
    report = data.cases[0].report
    assert report is not None
    assert read_report(report).sections == {"impression": "1. Acute PE.\n2. Effusion."}
    result = verify_dataset("Dataset103_Set", 1)
    assert not result.errors, result.to_text()
    (lost,) = [row for row in report_rows(data.folder) if row["status"] == "problem"]
    assert lost["reason"] == "the study mapping does not know the impression: 4"
    assert lost["row"] == "impressions_20250611.tsv, row 5"


def test_inspect_first_release(workspace: Workspace, inspect: Path) -> None:
    for path in inspect.glob("*.tsv"):
        path.unlink()
    _table(inspect / "Final_Impressions.csv", ["patient_id", "impression_id", "impressions"],
           [[5, "PE1a", "Acute PE."]])  # fmt: skip
    data = _convert("inspect", inspect)
    assert [(c.identifier, c.split, c.findings) for c in data.cases] == [("PE1a", "", {})]


def test_inspect_without_tables(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _convert("inspect", tmp_path, code=1)
    assert "has no table of impressions" in capsys.readouterr().err
