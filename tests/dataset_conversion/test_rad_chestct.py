"""RAD-ChestCT: a small tree with its layout and column names, made from real scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Workspace
from conversion import SCANS, summary
from other_trees import ABNORMALITIES, LOCATIONS, write_table

from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main


@pytest.fixture(scope="module")
def real() -> sitk.Image:
    """A real chest at 4 mm as RAD-ChestCT stores it: clipped (only the spacing is not 0.8 mm)."""
    image = sitk.ReadImage(str(SCANS / "cip_ct64.nii.gz"), sitk.sitkInt16)
    return sitk.Clamp(image, sitk.sitkInt16, -1000, 1000)


@pytest.fixture
def source(tmp_path: Path, real: sitk.Image) -> Path:
    """Three scans in the published files."""
    folder = tmp_path / "RAD-ChestCT"
    folder.mkdir()
    array = sitk.GetArrayFromImage(real)[::-1]  # head first: the first axis runs down
    header = ["NoteAcc_DEID", *[f"{a}*{place}" for a in ABNORMALITIES for place in LOCATIONS]]
    positives = {
        "trn00001": {"calcification*heart", "scarring*left_lung", "clip*other"},
        "val00001": {"fibrosis*left_lung", "nodulegr1cm*right_lung"},
        "tst00001": {"hernia*other", "nodule*left_lung", "nodule*right_lung"},
    }
    scans = {"imgtrain": "trn00001", "imgvalid": "val00001", "imgtest": "tst00001"}
    for number, (part, scan) in enumerate(scans.items()):
        # The first as it is, the others with fewer slices: three equal scans would be a defect.
        np.savez_compressed(folder / f"{scan}.npz", ct=array[: len(array) - 5 * number])
        cells = [int(column in positives[scan]) for column in header[1:]]
        write_table(
            folder / f"{part}_Abnormality_and_Location_Labels.csv", header, [[scan, *cells]]
        )
    patients = [["MRN1", "trn00001"], ["MRN2", "val00001"], ["MRN3", "tst00001"]]
    write_table(folder / "Summary_3630.csv", ["MRN_DEID", "NoteAcc_DEID"], patients)
    return folder


def _convert(source: Path, *more: str, code: int = 0) -> RawDataset:
    arguments = ["rad_chestct", "-i", str(source), "-d", "102", "-n", "Rad", "-np", "1", *more]
    assert main(arguments) == code
    return load_raw_dataset(102) if code == 0 else RawDataset("", source, {}, ())


def _positive(data: RawDataset) -> dict[str, set[str]]:
    return {c.identifier: {n for n, v in c.findings.items() if v} for c in data.cases}


def test_columns_are_the_published_ones() -> None:
    assert (len(ABNORMALITIES), len(LOCATIONS)) == (84, 52)


def test_arrays_lie_right_in_space(workspace: Workspace, source: Path, real: sitk.Image) -> None:
    data = _convert(source)
    image = sitk.ReadImage(str(data.cases[0].images[0]))
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 0.8))
    upright = sitk.DICOMOrient(image, "LPS")  # left, posterior, superior, as the real scan
    np.testing.assert_array_equal(sitk.GetArrayFromImage(upright), sitk.GetArrayFromImage(real))
    assert [(c.identifier, c.subject, c.split) for c in data.cases] == [
        ("trn00001", "MRN1", "train"), ("tst00001", "MRN3", "test"), ("val00001", "MRN2", "val"),
    ]  # fmt: skip
    assert all(case.report is None for case in data.cases)
    result = verify_dataset("Dataset102_Rad", 1)
    assert not result.errors, result.to_text()


def test_mappings_differ_as_published(workspace: Workspace, source: Path) -> None:
    data = _convert(source)
    assert len(data.finding_names) == 16
    assert data.dataset_json["label_mapping"] == "radfinder"
    assert _positive(data) == {
        "trn00001": {"Calcification", "Pulmonary fibrotic sequela", "Medical material"},
        "val00001": {"Lung nodule"},
        "tst00001": {"Hiatal hernia", "Lung nodule"},
    }
    data = _convert(source, "--mapping", "hlip", "--restart")
    assert len(data.finding_names) == 15
    both = {"Arterial wall calcification", "Coronary artery wall calcification"}
    assert _positive(data) == {
        "trn00001": both,
        "val00001": {"Pulmonary fibrotic sequela"},
        "tst00001": {"Hiatal hernia", "Lung nodule"},
    }


def test_original_and_own_mappings(workspace: Workspace, source: Path, tmp_path: Path) -> None:
    data = _convert(source, "--mapping", "original", "--external_test")
    assert data.finding_names == ABNORMALITIES
    assert {case.split for case in data.cases} == {"test"}
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"Nodule": ["nodule", "nodulegr1cm"]}))
    data = _convert(source, "--mapping", str(own), "--restart")
    assert data.finding_names == ["Nodule"]
    assert [case.findings["Nodule"] for case in data.cases] == [0, 1, 1]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [("radfnder", "one of radfinder, hlip, original"), ("bad.json", "no columns 'noodle*...'")],
)
def test_mappings_that_do_not_work(
    workspace: Workspace,
    source: Path,
    mapping: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (source / "bad.json").write_text('{"Nodule": ["noodle"]}')
    name = str(source / mapping) if mapping.endswith("json") else mapping
    _convert(source, "--mapping", name, code=1)
    assert message in capsys.readouterr().err


def test_bad_arrays_are_told(
    workspace: Workspace, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(source / "val00001.npz", volume=np.zeros((3, 3, 3)))
    (source / "trn00001.npz").write_bytes((source / "tst00001.npz").read_bytes()[:2000])
    _convert(source, code=1)
    assert "2 of 3 rows have problems" in capsys.readouterr().err
    data = _convert(source, "--keep_going")
    assert [case.identifier for case in data.cases] == ["tst00001"]
    reasons = summary(data.folder)["reasons"]
    assert reasons == {"the npz file has no array 'ct'": 1, "the npz file cannot be read": 1}


def test_pickles_are_never_opened(workspace: Workspace, source: Path) -> None:
    np.savez(source / "val00001.npz", ct=np.array([{"a": 1}], dtype=object))
    np.savez(source / "trn00001.npz", ct=np.zeros((4, 4, 4), np.int16))
    reasons = summary(_convert(source, "--keep_going").folder)["reasons"]
    assert reasons == {"the npz file cannot be read": 1, "the values are not HU of a chest": 1}


def test_folder_of_something_else(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _convert(tmp_path, code=1)
    assert "has none of the label tables" in capsys.readouterr().err
