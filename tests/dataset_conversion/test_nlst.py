"""NLST: a small tree with its layout and its coded dates, made from real scans."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk
from conftest import Workspace
from conversion import SCANS, report_rows, summary

from colipri.dataset_conversion.nlst import kernel_of, study_date
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main


def _convert(source: Path, *more: str, code: int = 0) -> RawDataset:
    arguments = ["nlst", "-i", str(source), "-d", "105", "-n", "NLST", "-np", "1", *more]
    assert main(arguments) == code
    return load_raw_dataset(105) if code == 0 else RawDataset("", source, {}, ())


def _series(folder: Path, name: str, slices: int = 79) -> Path:
    """A part of a real scan."""
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.ReadImage(str(SCANS / "cip_ct64.nii.gz"))
    sitk.WriteImage(image[:, :, :slices], str(folder / name))
    return folder / name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "NLST"
    first = folder / "100012" / "19990102-1.2.840.1"
    _series(first, "0OPAGELSQXLOCALIZER.nii.gz", 3)
    _series(first, "2-0OPAGEHSQXSTANDARD350.nii.gz", 79)
    _series(first, "3-0OPAGEHSQXBONE350.nii.gz", 79)
    _series(first, "4-0OPAGEHSQXSTANDARD350.nii.gz", 60)
    _series(first, "5-0OPAGEHSQXLUNG350.nii.gz", 79)
    _series(folder / "100012" / "01-02-2000-NLST-LSS-7", "1_OPA_SE_VZOOM_B30f_357.nii.gz")
    _series(folder / "200345" / "20010102", "1.nii.gz", 20)
    (folder / "200345" / "empty").mkdir()
    return folder


def test_two_reconstructions_soft_first(workspace: Workspace, source: Path) -> None:
    data = _convert(source)
    assert [(c.identifier, c.subject, c.study) for c in data.cases] == [
        ("100012_T0_2-0OPAGEHSQXSTANDARD350", "100012", "100012_19990102-1.2.840.1"),
        ("100012_T0_3-0OPAGEHSQXBONE350", "100012", "100012_19990102-1.2.840.1"),
        ("100012_T1_1_OPA_SE_VZOOM_B30f_357", "100012", "100012_01-02-2000-NLST-LSS-7"),
    ]
    assert all(case.report is None for case in data.cases)
    assert data.cases[0].images[0].is_relative_to(source)  # referenced
    assert summary(data.folder)["reasons"] == {
        "a localiser": 1,
        "not chosen, same kernel": 1,
        "not chosen, 2 others of the exam": 1,
        "too few slices": 1,
        "the exam has no images": 1,
    }
    result = verify_dataset("Dataset105_NLST", 1)
    assert not result.errors, result.to_text()
    notes = [row["reason"] for row in report_rows(data.folder) if row["status"] == "converted"]
    assert "kernel STANDARD, 79 slices" in notes


def test_one_reconstruction_and_short_series(workspace: Workspace, source: Path) -> None:
    data = _convert(source, "--max_reconstructions", "1", "--min_slices", "10")
    assert [case.identifier for case in data.cases] == [
        "100012_T0_2-0OPAGEHSQXSTANDARD350", "100012_T1_1_OPA_SE_VZOOM_B30f_357", "200345_T2_1",
    ]  # fmt: skip


def test_damaged_files_are_told(
    workspace: Workspace, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = source / "100012" / "01-02-2000-NLST-LSS-7" / "9-STANDARD.nii.gz"
    bad.write_bytes(b"\x1f\x8b" + b"0" * 100)
    _convert(source, code=1)
    assert "1 of 9 rows have problems" in capsys.readouterr().err
    assert len(_convert(source, "--keep_going").cases) == 3


def test_empty_source(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    _convert(tmp_path / "in", code=1)
    assert "has no folders <patient>/<study>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("0,OPL,GE,HSQX,STANDARD,350,2.nii.gz", "STANDARD"),
        ("1_OPA_SE_VZOOM_B50f_357.nii.gz", "B50F"),
        ("3_OPA_PH_MX8000_C_336.nii.gz", "C"),
        ("7_OPA_TO_AQUL4_FC51_340.nii.gz", "FC51"),
        ("series_12.nii.gz", ""),
    ],
)
def test_kernels(name: str, kernel: str) -> None:
    assert kernel_of(name) == kernel


def test_dates() -> None:
    names = ("19990102-1.2", "2000-01-02", "01-02-2001-NLST-LSS-55", "baseline")
    assert [study_date(name) for name in names] == ["19990102", "20000102", "20010102", ""]
