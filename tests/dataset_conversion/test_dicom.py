"""DICOM archives as hospitals export them: real pixels of the shipped scan, headers made here."""

from __future__ import annotations

import json
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from commands import run_until
from conftest import Workspace
from conversion import report_rows, summary
from dicom_writing import (
    expected,
    report_dataset,
    save,
    slice_dataset,
    uid,
    with_syntax,
    write_series,
)

from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main
from colipri.text.reports.report import read_report


def _convert(source: Path, *more: str, code: int = 0) -> RawDataset:
    result = main(["dicom", "-i", str(source), "-d", "101", "-n", "Export", "-np", "1", *more])
    assert result == code
    return load_raw_dataset(101) if code == 0 else RawDataset("", source, {}, ())


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients; the first with two reconstructions, a scout and a structured report."""
    folder = tmp_path / "export"
    write_series(folder / "DOE_JANE" / "1", series="soft", patient="DOE1", study="s1")
    write_series(folder / "DOE_JANE" / "2", series="lung", patient="DOE1", study="s1",
                 ConvolutionKernel="B70f")  # fmt: skip
    write_series(folder / "DOE_JANE" / "0", [5], series="scout", patient="DOE1", study="s1",
                 ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])  # fmt: skip
    sections = {"Findings": "No pleural effusion.", "Impression": "Normal."}
    save(report_dataset(sections, study="s1"), folder / "DOE_JANE" / "sr.dcm")
    write_series(folder / "ROE", range(50, 62), series="a", patient="ROE2", study="s2")
    (folder / "ROE" / "report.txt").write_text("FINDINGS: Emphys\u00e8me.\n", encoding="cp1252")
    (folder / "ROE" / "nurse.txt").write_text("call back")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff" + b"0" * 300)
    return folder


def test_an_export_becomes_a_data_set(workspace: Workspace, export: Path) -> None:
    data = _convert(export)
    assert len(data.cases) == 3
    assert len({case.subject for case in data.cases}) == 2
    assert len({case.study for case in data.cases}) == 2
    texts = {read_report(case.report).text for case in data.cases if case.report}
    assert texts == {"No pleural effusion.\nNormal.", "Emphys\u00e8me."}
    volumes = [sitk.GetArrayFromImage(sitk.ReadImage(str(c.images[0]))) for c in data.cases]
    assert {v.tobytes() for v in volumes} == {
        expected().tobytes(), expected(range(50, 62)).tobytes()
    }  # fmt: skip
    assert {v.dtype for v in volumes} == {np.dtype(np.int16)}
    content = summary(data.folder)
    assert content["reasons"] == {
        "a localiser": 1,
        "it is not a DICOM file": 1,
        "a text that belongs to no study": 1,
    }


@pytest.mark.parametrize("more", [[], ["--keep_identifiers"]])
def test_the_verification_finds_no_error(
    workspace: Workspace, export: Path, more: list[str]
) -> None:
    _convert(export, *more)
    result = verify_dataset("Dataset101_Export", 1)
    assert not result.errors, result.to_text()


def test_nothing_in_the_data_set_names_anybody(workspace: Workspace, export: Path) -> None:
    data = _convert(export)
    for file in data.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes() + str(file.relative_to(data.folder)).encode()
            for secret in (b"DOE", b"ROE", b"ACC-", b"Muster", uid("s1").encode(), b"20200131"):
                assert secret not in content, (file, secret)
    private = workspace.raw / "private" / data.name
    assert private.stat().st_mode & 0o077 == 0
    names = (private / "identifiers.csv").read_text()
    assert data.cases[0].identifier in names and "DOE1" in names
    salt = (private / "salt.txt").read_text().strip()
    assert salt not in (data.folder / "conversion.json").read_text()


def test_the_same_salt_gives_the_same_names(
    workspace: Workspace, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    (tmp_path / "salt").write_text("correct horse battery\n")
    for number, more in ((101, []), (102, ["--salt", str(tmp_path / "salt")]), (103, [])):
        if number == 103:
            monkeypatch.setenv("colipri_salt", "correct horse battery")
        arguments = ["-i", str(export / "ROE"), "-d", str(number), "-n", "A", "-np", "1", *more]
        assert main(["dicom", *arguments]) == 0
        names.append(load_raw_dataset(number).cases[0].subject)
    assert names[0] != names[1] == names[2]


def test_a_salt_that_is_too_short_is_refused(
    workspace: Workspace, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "salt").write_text("abc")
    _convert(export, "--salt", str(tmp_path / "salt"), code=1)
    assert "shorter than 8 characters" in capsys.readouterr().err


def test_public_data_may_keep_names_and_stay_in_place(workspace: Workspace, export: Path) -> None:
    data = _convert(export, "--keep_identifiers")
    assert {case.subject for case in data.cases} == {"DOE1", "ROE2"}
    assert {case.identifier for case in data.cases} == {
        uid("s1", "soft"), uid("s1", "lung"), uid("s2", "a")
    }  # fmt: skip
    folders = {case.images[0] for case in data.cases}
    assert folders == {export / "DOE_JANE" / "1", export / "DOE_JANE" / "2", export / "ROE"}
    assert not (data.folder / "imagesTr").exists()
    assert not (workspace.raw / "private").exists()


def test_a_zip_archive_is_read_without_unpacking(
    workspace: Workspace, export: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(file for file in export.rglob("*") if file.is_file()):
            target.write(file, file.relative_to(export))
        target.writestr("../../evil.dcm", b"x" * 200)
    data = _convert(archive)
    assert len(data.cases) == 3
    assert summary(data.folder)["reasons"]["refused"] == 1
    texts = {read_report(case.report).text for case in data.cases if case.report}
    assert texts == {"No pleural effusion.\nNormal.", "Emphys\u00e8me."}
    assert not list(tmp_path.rglob("evil*"))


def _broken(folder: Path) -> None:
    write_series(folder / "good", series="good")
    write_series(folder / "hole", [k for k in range(30, 42) if k != 35], series="hole")
    for file in write_series(folder / "mpeg", series="mpeg"):
        with_syntax(file, "1.2.840.10008.1.2.4.100")
    cut = write_series(folder / "cut", series="cut")[3]
    cut.write_bytes(cut.read_bytes()[:-3000])
    write_series(folder / "mixed" / "a", series="mixed")
    other = slice_dataset(50, series="mixed", SOPInstanceUID=uid("x"))
    other.ImagePositionPatient = [-200.0, -150.0, -204.0]
    save(other, folder / "mixed" / "x.dcm")
    write_series(folder / "short", range(30, 34), series="short")
    write_series(folder / "raw", series="raw", RescaleIntercept=None, RescaleSlope=None)


def test_defects_stop_the_conversion_unless_told_otherwise(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _broken(tmp_path / "in")
    _convert(tmp_path / "in", code=1)
    assert "5 of 7 rows have problems" in capsys.readouterr().err
    assert not (workspace.raw / "Dataset101_Export" / "dataset.json").exists()
    data = _convert(tmp_path / "in", "--keep_going")
    assert len(data.cases) == 1
    reasons = summary(data.folder)["reasons"]
    assert reasons.pop(
        "pixels compressed as MPEG2 Main Profile / Main Level cannot be decoded here"
    )
    assert reasons == {
        "slices are missing": 1,
        "two series are mixed under one UID": 1,
        "its pixels cannot be read, a truncated file": 1,
        "the values are not HU": 1,
        "too few slices": 1,
    }
    problems = [row["reason"] for row in report_rows(data.folder) if row["status"] == "problem"]
    assert any("(slice 4 of 12)" in p or "slice" in p for p in problems)
    assert not any(str(tmp_path) in problem for problem in problems)  # paths name patients


def test_link_loops_and_copies_in_a_tree(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_series(folder / "a")
    write_series(folder / "b")  # the same instances again
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    data = _convert(folder)
    assert len(data.cases) == 1
    assert summary(data.folder)["reasons"] == {
        "a copy of a file with the same instance UID": 1,
        "the link leads to a folder that was already read": 1,
    }


def test_notes_are_in_the_report_also_after_a_resume(workspace: Workspace, tmp_path: Path) -> None:
    write_series(tmp_path / "in", RescaleType="US")
    for _ in range(2):
        data = _convert(tmp_path / "in")
        assert report_rows(data.folder)[0]["reason"] == "rescale type US instead of HU"


def test_a_killed_run_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    for n in range(5):
        write_series(tmp_path / "in" / str(n), range(20, 70), series=str(n), study=str(n))
    arguments = ["dicom", "-i", str(tmp_path / "in"), "-d", "101", "-n", "Export", "-np", "1"]
    images = workspace.raw / "Dataset101_Export" / "imagesTr"
    run_until(
        lambda: len(list(images.glob("[!.]*.nii.gz"))) >= 2,
        signal.SIGKILL,
        "colipri_convert_dataset",
        *arguments,
    )
    assert not (images.parent / "dataset.json").exists()
    before = {file: file.stat().st_mtime_ns for file in images.glob("[!.]*.nii.gz")}
    assert main(arguments) == 0
    assert len(load_raw_dataset(101).cases) == 5
    for file, time in before.items():
        assert file.stat().st_mtime_ns == time  # finished images were kept, under the same names
    assert not list(images.glob(".partial*"))


def test_real_lidc_slices(workspace: Workspace, shared_data: Path) -> None:
    folder = shared_data / "lidc_idri_0314" / "dicom_12_slices"
    data = _convert(folder)
    (case,) = data.cases
    image = sitk.ReadImage(str(case.images[0]))
    assert image.GetSize() == (512, 512, 12)
    assert sitk.GetArrayViewFromImage(image).min() == -1000
    assert case.subject.startswith("patient_")
    settings = json.loads((data.folder / "dataset.json").read_text())
    assert settings["identifiers"] == "hashed with a salt"
