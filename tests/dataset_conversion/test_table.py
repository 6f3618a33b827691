"""The table converter on real scans: five formats, and what goes wrong in tables."""

from __future__ import annotations

import csv
import datetime
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from conversion import real_scans, report_rows, summary

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.table.file import TableFile
from colipri.imageio.reading import read_header, read_image
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.run.convert_dataset import main
from colipri.text.reports.report import read_report

COLUMNS = ["file", "text", "patient", "accession", "set", "Nodule", "Effusion"]
NASTY = 'FINDINGS: A 4,5 mm "ground glass" nodule;\nno effusion.\n\nIMPRESSION: Größe stabil.'
ALL = "--image file --report text --subject patient --study accession --split set"
ALL += " --labels Nodule Effusion"


def _rows() -> list[list[Any]]:
    """Two scans of one patient, one of another; a value of every kind."""
    a, b, c = (str(scan) for scan in real_scans()[:3])
    return [
        [a, NASTY, "p1", "s1", "train", 1, 0],
        [b, NASTY, "p1", "s1", "training", 1.0, None],
        [c, "", "p2", "s2", "Test", 0, None],
    ]


def _as_text(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [["" if cell is None else str(cell) for cell in row] for row in rows]


def write_csv(
    path: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8", delimiter: str = ","
) -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(_as_text([COLUMNS, *rows]))


def write_semicolons_of_windows(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    write_csv(path, rows, "cp1252", ";")


def write_utf16(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    write_csv(path, rows, "utf-16")


def write_with_mark(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    write_csv(path, rows, "utf-8-sig")


def write_tsv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    write_csv(path, rows, delimiter="\t")


def write_jsonl(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in objects]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    import pandas as pd

    pd.DataFrame(rows, columns=COLUMNS).to_parquet(path)


def write_excel(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Notes"
    sheet = book.create_sheet("Scans")
    for row in [COLUMNS, *rows]:
        sheet.append(list(row))
    book.save(path)


def convert(source: Path, *arguments: str) -> int:
    return main(["table", "-i", str(source), "-d", "101", "-n", "T", "-np", "1", *arguments])


def converted(source: Path, *arguments: str) -> RawDataset:
    assert convert(source, *arguments) == 0
    return load_raw_dataset(101)


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".csv", write_csv),
        (".csv", write_semicolons_of_windows),
        (".csv", write_utf16),
        (".csv", write_with_mark),
        (".tsv", write_tsv),
        (".jsonl", write_jsonl),
        (".parquet", write_parquet),
        (".xlsx", write_excel),
    ],
)
def test_every_format_gives_the_same_data_set(
    ending: str,
    write: Callable[[Path, Sequence[Sequence[Any]]], None],
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    source = tmp_path / f"scans{ending}"
    write(source, _rows())
    sheet = ["--sheet", "Scans"] if ending == ".xlsx" else []
    data = converted(source, *ALL.split(), *sheet)
    scans = real_scans()[:3]
    assert [case.identifier for case in data.cases] == [s.name[:-7] for s in scans]
    assert [case.images for case in data.cases] == [(scan,) for scan in scans]
    assert [(c.subject, c.study, c.split) for c in data.cases] == [
        ("p1", "s1", "train"),
        ("p1", "s1", "train"),
        ("p2", "s2", "test"),
    ]
    assert [c.findings["Nodule"] for c in data.cases] == [1, 1, 0]
    assert [c.findings["Effusion"] for c in data.cases] == [0, None, None]
    assert data.cases[2].report is None, "an empty cell is an image-only case"
    report = data.cases[0].report
    assert report is not None and report.read_text("utf-8") == NASTY
    assert set(read_report(report).sections) == {"findings", "impression"}
    assert data.dataset_json["file_ending"] == ".nii.gz"
    assert data.dataset_json["numTraining"] == 2
    result = summary(data.folder)
    assert (result["rows"], result["converted"], result["without_report"]) == (3, 3, 1)


def test_sections_in_columns_and_a_root(workspace: Workspace, tmp_path: Path) -> None:
    scan = real_scans()[0]
    source = tmp_path / "t.csv"
    source.write_text(f"name,F,I\n{scan.name},Clear lungs.,\n{real_scans()[1].name},,\n", "utf-8")
    sections = ["--sections", "findings=F", "impression=I", "--root", str(scan.parent)]
    data = converted(source, "--image", "name", *sections)
    report = data.cases[0].report
    assert report is not None
    assert json.loads(report.read_text("utf-8")) == {"findings": "Clear lungs."}
    assert data.cases[1].report is None
    assert data.cases[0].images == (scan,)


def test_report_files_and_two_channels(workspace: Workspace, tmp_path: Path) -> None:
    one, two = real_scans()[:2]
    (tmp_path / "r.txt").write_text("Clear.", encoding="utf-8")
    source = tmp_path / "t.csv"
    source.write_text(f"a,b,r,id\n{one},{two},r.txt,x/y\n", encoding="utf-8")
    names = ["--channel_names", "CT", "PET", "--case", "id", "--report_file", "r"]
    data = converted(source, "--image", "a", "b", *names)
    case = data.cases[0]
    assert (case.identifier, case.images) == ("x_y", (one, two))
    assert case.report == tmp_path / "r.txt"
    assert data.channel_names == {"0": "CT", "1": "PET"}


BAD_ROWS = {
    "no_such.nii.gz,p,0": "the image does not exist",
    "../../etc/hostname,p,0": "leads outside",
    ",p,0": "there is no path",
    "{scan},p,maybe": "a label is neither 0, 1 nor empty",
    "{scan},1.23457E+15,0": "a spreadsheet has cut the digits",
    "{scan},p,0,too long": "a row has the wrong length",
    "empty.nii.gz,p,0": "the image is empty",
    "loop.nii.gz,p,0": "the image cannot be reached",
    "broken.nii.gz,p,0": "the image is a broken link",
}


def _write_bad_table(folder: Path) -> Path:
    (folder / "empty.nii.gz").touch()
    (folder / "loop.nii.gz").symlink_to(folder / "loop2.nii.gz")
    (folder / "loop2.nii.gz").symlink_to(folder / "loop.nii.gz")
    (folder / "broken.nii.gz").symlink_to(folder / "gone.nii.gz")
    good, *rest = real_scans()[:2]
    lines = ["path,patient,Nodule", f"{good},p,1", *BAD_ROWS, f"{good},p,1"]
    text = "\n".join(lines).replace("{scan}", str(rest[0]))
    (folder / "t.csv").write_text(text + "\n", encoding="utf-8")
    return folder / "t.csv"


def test_bad_rows_fail_together_and_nothing_is_half_written(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write_bad_table(tmp_path)
    arguments = ["--image", "path", "--subject", "patient", "--labels", "Nodule"]
    assert convert(source, *arguments) == 1
    folder = workspace.raw / "Dataset101_T"
    error = capsys.readouterr().err
    assert "10 of 11 rows have problems" in error and "t.csv, row 3: the image does not" in error
    assert "--keep_going" in error
    assert not (folder / "dataset.json").exists() and not (folder / "cases.csv").exists()
    assert summary(folder)["problems"] == 10


def test_keep_going_leaves_bad_rows_out_with_their_reasons(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = _write_bad_table(tmp_path)
    arguments = ["--image", "path", "--subject", "patient", "--labels", "Nodule", "--keep_going"]
    data = converted(source, *arguments)
    assert len(data.cases) == 1
    problems = [row for row in report_rows(data.folder) if row["status"] == "problem"]
    by_row = {row["row"]: row["reason"] for row in problems}
    for number, (row, reason) in enumerate(BAD_ROWS.items(), start=3):
        assert reason in by_row[f"t.csv, row {number}"], row
    assert "the case appears twice" in by_row["t.csv, row 12"]
    assert "first in t.csv, row 2" in by_row["t.csv, row 12"]
    summary(data.folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--image File", "no column 'File'; did you mean 'file'"),
        ("--image file --report Findings", "no column 'Findings'; it has file, text, patient"),
        ("--image file --subject patientt", "did you mean 'patient'"),
        ("--image file text", "2 image columns need as many --channel_names"),
        ("--image file --sections findings", "as findings=COLUMN"),
        ("--image file --encoding utf-99", "cannot be read as utf-99"),
    ],
)
def test_wrong_columns(
    arguments: str,
    message: str,
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv(tmp_path / "t.csv", _rows())
    assert convert(tmp_path / "t.csv", *arguments.split()) == 1
    assert message in capsys.readouterr().err
    assert not list(workspace.raw.iterdir()), "nothing was started"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b'file,text\na.nii.gz,"never closed\n', "every quoted cell closed"),
        ("t.csv", b'file,text\na.nii.gz,"a "quote" in it"\n', "must be doubled"),
        ("t.xlsx", b"no zip", "not a readable Excel file"),
        ("t.parquet", b"no parquet", "not a readable Parquet file"),
        ("t.doc", b"?", "is not a known kind of table"),
        ("t.csv", b"file,file\na.nii.gz,b\n", "appears twice"),
        ("t.csv", b"file\n", "the source has none"),
    ],
)
def test_broken_tables(
    name: str,
    content: bytes,
    message: str,
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    assert convert(tmp_path / name, "--image", "file") == 1
    assert message in capsys.readouterr().err
    assert not list(workspace.raw.rglob("dataset.json"))


def test_what_spreadsheets_do_to_identifiers(workspace: Workspace, tmp_path: Path) -> None:
    a, b, c = (str(scan) for scan in real_scans()[:3])
    date = datetime.datetime(2024, 2, 1)
    rows = [
        [a, "", 17.0, date, "", None, None],  # a number; studies may be named by their date
        [b, "", date, "s", "", None, None],  # "1-2" has become the first of February
        [c, "", 1.2345678901234567e17, "s", "", None, None],
    ]
    write_excel(tmp_path / "t.xlsx", rows)
    arguments = "--image file --subject patient --study accession --sheet Scans --keep_going"
    data = converted(tmp_path / "t.xlsx", *arguments.split())
    assert [(case.subject, case.study) for case in data.cases] == [("17", "2024-02-01")]
    reasons = [row["reason"] for row in report_rows(data.folder)]
    assert "has made a date of 'patient'" in reasons[1]
    assert "has cut the digits of 'patient'" in reasons[2]


def test_a_broken_line_of_json_is_one_row(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    sections = {"findings": "Clear.", "impression": ""}
    good = json.dumps({"file": str(real_scans()[0]), "text": sections})
    source.write_text(f"{good}\n{{broken\n[1]\n", encoding="utf-8")
    data = converted(source, "--image", "file", "--report", "text", "--keep_going")
    report = data.cases[0].report
    assert report is not None and json.loads(report.read_text("utf-8")) == {"findings": "Clear."}
    assert summary(data.folder)["problems"] == 2


def test_a_report_that_was_withdrawn_is_gone(workspace: Workspace, tmp_path: Path) -> None:
    scan = real_scans()[0]
    source = tmp_path / "t.csv"
    for text, expected in (("Clear.", True), ("", False), ("Nodule.", True)):
        source.write_text(f"file,text\n{scan},{text}\n", encoding="utf-8")
        data = converted(source, "--image", "file", "--report", "text")
        assert (data.cases[0].report is not None) == expected
        assert len(list(data.folder.glob("reportsTr/*"))) == int(expected)


@pytest.mark.parametrize("mode", ["", "--link", "--copy", "--compress"])
def test_a_dicom_series_is_its_folder(
    mode: str, workspace: Workspace, tmp_path: Path, shared_data: Path
) -> None:
    series = shared_data / "lidc_idri_0314" / "dicom_12_slices"
    source = tmp_path / "t.csv"
    source.write_text(f"folder\n{series}\n", encoding="utf-8")
    data = converted(source, "--image", "folder", *([mode] if mode else []))
    (case,) = data.cases
    assert case.identifier == "dicom_12_slices"
    assert case.images[0].is_dir() == (mode in ("", "--link"))
    image, expected = read_image(case.images), read_image(series)
    np.testing.assert_array_equal(image.array, expected.array)
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-3)
    stored = read_header(case.images[0]).dtype
    assert mode in ("", "--link") or stored == "int16"


def test_ten_thousand_columns_are_found_at_once(tmp_path: Path) -> None:
    """Label tables of 84 abnormalities at 52 places exist: looking up must not grow with both."""
    columns = [f"abnormality {number}" for number in range(10_000)]
    path = tmp_path / "wide.csv"
    path.write_text("\n".join([",".join(columns), ",".join(map(str, range(10_000)))]))
    table = TableFile(path, delimiter=",")
    started = time.process_time()
    (row,) = table.rows(columns)
    assert time.process_time() - started < 0.5  # each against each takes twice that and more
    assert list(row.cells.values()) == [str(number) for number in range(10_000)]
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ColipriError, match="column 'a' appears twice"):
        TableFile(path, delimiter=",").require(["b", "a"])


@pytest.mark.parametrize("start", ["sep=;\r\n", "\r\n", "sep=;\r\n\r\n;;;;;;\r\n"])
def test_lines_before_the_header(start: str, workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "scans.csv"
    write_csv(source, _rows(), delimiter=";")
    source.write_bytes(start.encode() + source.read_bytes())
    data = converted(source, *ALL.split())
    assert len(data.cases) == 3 and data.cases[0].report is not None


def test_a_report_of_200_kb(workspace: Workspace, tmp_path: Path) -> None:
    rows = _rows()
    for row in rows[:2]:  # of one study
        row[1] = "FINDINGS: " + "There is no effusion. " * 10_000
    source = tmp_path / "scans.csv"
    write_csv(source, rows)
    report = converted(source, *ALL.split()).cases[0].report
    assert report is not None and report.read_text("utf-8") == rows[0][1].strip()


def test_nan_is_an_empty_cell(workspace: Workspace, tmp_path: Path) -> None:
    rows = _rows()
    rows[2][1:4] = ["nan", "nan", "NaN"]
    source = tmp_path / "scans.csv"
    write_csv(source, rows)
    case = converted(source, *ALL.split()).cases[2]
    assert case.report is None and case.subject == case.identifier == case.study
