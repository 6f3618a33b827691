"""Writing raw data sets: what is written is read back, and nothing is half-written."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Workspace
from raw_dataset.small_raw_dataset import SCANS

from colipri.common.errors import ColipriError
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.writing import (
    CaseRow,
    path_in_table,
    write_cases,
    write_dataset_json,
    write_report,
)


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    return workspace.raw / "Dataset102_Written"


def test_written_is_read_back(folder: Path) -> None:
    report = write_report(folder, "a", "Small effusion.")
    held_out = write_report(folder, "t", {"findings": "No effusion."}, "test")
    image = SCANS / "cip_ct64.nii.gz"
    rows = [
        CaseRow("a", "p,1", "s 1", "train", [image], report, {"effusion": True}),
        CaseRow("b", images=['imagesTr/Ä "quoted", b.nrrd'], findings={"effusion": None}),
        CaseRow("t", split="test", images=[folder / "imagesTs" / "t.nrrd"]),
    ]
    counts = write_cases(folder, iter(rows), ["effusion"])
    assert counts == {"train": 1, "val": 0, "test": 1, "": 1}
    write_dataset_json(folder, {"0": "CT"}, ".nii.gz", ["effusion"], counts, licence="CC0")
    dataset = load_raw_dataset(102)
    a, b, t = dataset.cases
    assert (a.subject, a.study, a.images, a.report) == ("p,1", "s 1", (image,), report)
    assert b.images == (folder / "imagesTr" / 'Ä "quoted", b.nrrd',)
    assert (t.images[0], t.report) == (folder / "imagesTs" / "t.nrrd", held_out)
    assert [case.findings["effusion"] for case in dataset.cases] == [1, None, None]
    assert dataset.dataset_json["numTraining"] == 2 and dataset.dataset_json["name"] == "Written"
    assert dataset.dataset_json["licence"] == "CC0"


def test_paths_inside_are_relative(folder: Path) -> None:
    assert path_in_table(folder, folder / "imagesTr" / "x.nrrd") == "imagesTr/x.nrrd"
    assert path_in_table(folder, "imagesTr/../imagesTr/x.nrrd") == "imagesTr/x.nrrd"
    assert path_in_table(folder, "/archive/x.nrrd") == "/archive/x.nrrd"
    assert path_in_table(folder, "../x.nrrd") == str(folder.parent / "x.nrrd")
    assert path_in_table(folder, folder.parent / "Dataset102_Written2" / "x").startswith("/")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (CaseRow("a"), "case 'a' is written twice"),
        (CaseRow(""), "is not a valid case name"),
        (CaseRow("x/y"), "is not a valid case name"),
        (CaseRow(".x"), "is not a valid case name"),
        (CaseRow("x", split="dev"), "case x: split 'dev'"),
        (CaseRow("x", findings={"other": 1}), "finding 'other' is not among"),
        (CaseRow("x", findings={"effusion": 2}), "'effusion' is 2"),
        (CaseRow("x", images=["a|b.nrrd"]), "contains '|'"),
    ],
)
def test_wrong_rows_leave_the_old_table(folder: Path, row: CaseRow, message: str) -> None:
    write_cases(folder, [CaseRow("old")], ["effusion"])
    before = (folder / "cases.csv").read_bytes()
    with pytest.raises(ColipriError) as error:
        write_cases(folder, [CaseRow("a"), row], ["effusion"])
    assert message in str(error.value)
    assert [path.name for path in folder.iterdir()] == ["cases.csv"]
    assert (folder / "cases.csv").read_bytes() == before


def test_a_source_that_fails_leaves_nothing(folder: Path) -> None:
    def rows() -> Iterator[CaseRow]:
        yield CaseRow("a")
        raise RuntimeError("the archive is gone")

    with pytest.raises(RuntimeError):
        write_cases(folder, rows())
    assert list(folder.iterdir()) == []
    with pytest.raises(ColipriError, match="no case to write"):
        write_cases(folder, [])
    assert list(folder.iterdir()) == []


def test_a_second_report_replaces_the_first(folder: Path) -> None:
    first = write_report(folder, "a", "Text.")
    second = write_report(folder, "a", {"findings": "Sections."})
    assert not first.exists() and json.loads(second.read_text()) == {"findings": "Sections."}
    assert write_report(folder, "a", "Text again.").exists() and not second.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"1": "CT"}, ".nii.gz"), 'numbered "0", "1"'),
        (({}, ".nii.gz"), "channel_names is empty"),
        (({"0": "CT"}, "nii.gz"), "must begin with a dot"),
        (({"0": "CT"}, ".nii.gz", ["split"]), "cannot be called 'split'"),
        (({"0": "CT"}, ".nii.gz", ["a", "a"]), "named twice"),
        (({"0": "CT"}, ".nii.gz", [" a"]), "not a valid finding name"),
    ],
)
def test_wrong_descriptions(folder: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(ColipriError, match=message):
        write_dataset_json(folder, *arguments)
    assert not (folder / "dataset.json").exists()


def test_long_tables_are_streamed(folder: Path) -> None:
    """5,000 rows of 2 kB each need no 10 MB.

    The smaller of two peaks: pathlib interns the parts of every path, and Python's own table of
    interned strings may double (15 MB after a million strings) in one of the two, never in both.
    """
    long_name = "/archive/" + "x" * 2000
    peaks = []
    for _ in range(2):
        rows = (
            CaseRow(f"case_{number}", images=[f"{long_name}{number}"]) for number in range(5_000)
        )
        tracemalloc.start()
        write_cases(folder, rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (folder / "cases.csv").stat().st_size > 10e6
    assert min(peaks) < 3e6
