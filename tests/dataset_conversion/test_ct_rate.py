"""CT-RATE: small trees with its exact layout, column names and defects, made from real scans.

The data set itself cannot be shipped; the pixels here are the package's own scans, the reports and
tables are written by the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Workspace
from conversion import report_rows, summary
from ct_rate_tree import HU, ORIGIN, SPACING, Tree, with_header

from colipri.dataset_conversion.ct_rate.source import FINDINGS
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main
from colipri.text.reports.report import read_report


def blank(values: np.ndarray) -> sitk.Image:
    """A volume as the first release has it: no spacing, no origin."""
    return sitk.GetImageFromArray(values)


def _convert(source: Path, *more: str, code: int = 0) -> RawDataset:
    arguments = ["ct_rate", "-i", str(source), "-d", "101", "-n", "CTRATE", "-np", "1", *more]
    assert main(arguments) == code
    return load_raw_dataset(101) if code == 0 else RawDataset("", source, {}, ())


def test_second_release_is_referenced_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "in")
    text = 'Both lungs:\n"ground glass", 3.5 mm; no effusion.'
    path = tree.add("train_1_a_1", findings=text)
    tree.add("train_1_a_2", findings=text)
    tree.add("valid_7_b_1")
    data = _convert(tree.write())
    assert [(c.identifier, c.subject, c.study, c.split) for c in data.cases] == [
        ("train_1_a_1", "train_1", "train_1_a", "train"),
        ("train_1_a_2", "train_1", "train_1_a", "train"),
        ("valid_7_b_1", "valid_7", "valid_7_b", "test"),
    ]
    first = data.cases[0]
    assert first.images == (path,)
    assert first.report is not None
    sections = read_report(first.report).sections
    assert list(sections) == ["technique", "findings", "impression"]  # "Not given." is nothing
    assert "ground glass" in sections["findings"] and "3.5 mm" in sections["findings"]
    assert data.finding_names == list(FINDINGS) and len(FINDINGS) == 18
    assert first.findings["Medical material"] == 1 and first.findings["Cardiomegaly"] == 0
    assert data.dataset_json["licence"] == "CC BY-NC-SA 4.0"


def test_head_scans_broken_and_missing_volumes_are_told(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path / "in")
    tree.add("train_1_a_1")
    tree.add("train_2_a_1", write=False)
    tree.add("train_3_a_1")
    tree.add("train_11755_a_2", write=False)
    tree.no_chest["train"] = ["train_3_a_1.nii.gz"]
    tree.reports["train"].append(["brain.nii.gz", "", "", "x", "y"])
    (tree.root / "valid_fixed").mkdir()
    source = tree.write()
    _convert(source, code=1)
    assert "2 of 5 rows have problems" in capsys.readouterr().err
    data = _convert(source, "--keep_going")
    assert [case.identifier for case in data.cases] == ["train_1_a_1"]
    assert summary(data.folder)["reasons"] == {
        "the image does not exist": 1,
        "no chest CT (metadata/no_chest list)": 1,
        "known to be broken": 1,
        "this is not the name of a train volume": 1,
    }
    data = _convert(source, "--keep_going", "--with_no_chest", "--restart")
    assert len(data.cases) == 2


def test_first_release_is_repaired_and_rescaled_only_where_needed(
    workspace: Workspace, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "in", ending="")
    tree.add("train_1_a_1", image=blank((HU.astype(np.int32) + 1024).astype(np.int16)))
    tree.add("train_2_a_1", image=blank(HU), RescaleIntercept=-8192.0)  # in HU already
    stored = (HU.astype(np.int32) + 8192).astype(np.int16)
    tree.add("train_3_a_1", image=blank(stored), RescaleIntercept=-8192.0)
    tree.add("train_4_a_1", image=blank(HU), RescaleIntercept=0.0)
    tree.add("train_5_a_1", image=with_header(HU))  # neither blank nor to be rescaled
    oblique = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    tree.add("train_6_a_1", image=blank(HU), ImageOrientationPatient=str(oblique))
    data = _convert(tree.write(), "--version", "v1")
    for case in data.cases:
        image = sitk.ReadImage(str(case.images[0]))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), HU, case.identifier)
        np.testing.assert_allclose(image.GetSpacing(), SPACING)
        np.testing.assert_allclose(image.GetOrigin(), ORIGIN)
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((1, 2, 3)),
        np.add(ORIGIN, [-3 * SPACING[2], SPACING[0], -2 * SPACING[1]]),
    )
    evidence = {row["case"]: row["reason"] for row in report_rows(data.folder)}
    assert evidence["train_1_a_1"].startswith("header rebuilt; HU = 1*x-1024 (share 0.")
    assert evidence["train_2_a_1"].startswith("header rebuilt; HU as stored (share 0.")
    assert evidence["train_3_a_1"].startswith("header rebuilt; HU = 1*x-8192 (share 0.")
    assert "intercept 0" in evidence["train_4_a_1"]
    assert evidence["train_5_a_1"].startswith("HU as stored")


def test_first_release_what_cannot_be_repaired(workspace: Workspace, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "in", ending="")
    tree.add("train_1_a_1", image=with_header(HU))
    tree.add("train_2_a_1", image=blank(np.full_like(HU, 700)))
    tree.add("train_3_a_1", XYSpacing="")
    tree.add("train_4_a_1", Rows=512)
    data = _convert(tree.write(), "--version", "v1", "--keep_going")
    assert [case.identifier for case in data.cases] == ["train_1_a_1"]
    assert summary(data.folder)["reasons"] == {
        "cannot tell if the values are HU": 1,
        "the metadata are incomplete": 1,
        "the size differs from the metadata": 1,
    }


def test_the_verification_finds_the_defects_of_the_source_and_no_others(
    workspace: Workspace, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "in")
    noise = np.random.default_rng(0)
    for number in range(1, 7):
        other = HU + noise.integers(-9, 9, HU.shape).astype(np.int16)
        text = f"Nodule of {number} mm."
        path = tree.add(f"train_{number}_a_1", findings=text, image=with_header(other))
    tree.add("valid_9_a_1", findings="No nodule.")
    source = tree.write()
    _convert(source)
    result = verify_dataset("Dataset101_CTRATE", 1)
    assert not result.errors, result.to_text()
    path.write_bytes(path.read_bytes()[:-4000])  # a download that broke off
    blank_one = tree.root / "train_fixed" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz"
    sitk.WriteImage(blank(HU), str(blank_one))  # a volume of the first release among them
    result = verify_dataset("Dataset101_CTRATE", 1)
    codes = {(found["case"], found["code"]) for found in result.to_list()}
    assert ("train_6_a_1", "image_truncated") in codes
    assert any(case == "train_1_a_1" and "spac" in code for case, code in codes), codes


def test_evaluation_subset(workspace: Workspace, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "in")
    tree.add("train_1_a_1")
    tree.add("valid_1_a_1", findings="A.", XYSpacing="[0.9, 0.9]")
    tree.add("valid_1_a_2", findings="A.", XYSpacing="[0.6, 0.6]")
    tree.add("valid_1_a_3", findings="A.", XYSpacing="[0.6, 0.6]")
    tree.add("valid_2_a_1", findings="A.", XYSpacing="[0.5, 0.5]")
    tree.add("valid_3_a_1", findings="B.", XYSpacing="[0.5, 0.5]")
    data = _convert(tree.write(), "--evaluation_subset")
    assert [c.identifier for c in data.cases] == ["train_1_a_1", "valid_1_a_2", "valid_3_a_1"]
    assert summary(data.folder)["reasons"] == {
        "not in the evaluation subset, finer pixels": 2,
        "not in the evaluation subset, same findings text": 1,
    }


def test_volumes_that_only_labels_name_are_image_only(workspace: Workspace, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "in")
    tree.add("train_1_a_1")
    tree.add("train_1_a_2")
    tree.reports["train"].pop()
    data = _convert(tree.write(), "--splits", "train")
    assert [case.report is None for case in data.cases] == [False, True]
    assert data.cases[1].findings["Medical material"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("version", "if it is the other release: --version v1"),
        ("column", "has no column 'Findings_EN'; did you mean 'Findings_En'"),
        ("list", "so head CTs cannot be skipped"),
        ("folder", "is not CT-RATE"),
        ("part", "has no folder valid_fixed"),
    ],
)
def test_what_stops_the_conversion(
    workspace: Workspace,
    tmp_path: Path,
    damage: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = Tree(tmp_path / "in", ending="" if damage == "version" else "_fixed")
    tree.add("train_1_a_1")
    source = tree.write()
    reports = tree.root / "radiology_text_reports" / "train_reports.csv"
    if damage == "column":
        reports.write_text(reports.read_text().replace("Findings_EN", "Findings_En"))
    if damage == "list":
        (tree.root / "metadata" / "no_chest_train.txt").unlink()
    if damage == "folder":
        source = tree.root / "metadata"
    _convert(source, *(["--splits", "valid"] if damage == "part" else []), code=1)
    assert message in capsys.readouterr().err


def test_a_bad_label_is_one_problem(workspace: Workspace, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "in")
    tree.add("train_1_a_1")
    tree.add("train_2_a_1")
    tree.labels["train"][1][3] = "maybe"
    data = _convert(tree.write(), "--keep_going")
    assert len(data.cases) == 1
    assert "neither 0, 1 nor empty" in report_rows(data.folder)[-1]["reason"]
