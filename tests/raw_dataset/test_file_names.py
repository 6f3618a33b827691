"""File names as they come: other encodings, dots, great length, hidden files, no dot."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from conftest import Workspace
from dicom_writing import expected, write_series
from preprocessing.small_dataset import NAME, make_plans, phantom, write_image, write_plans
from raw_dataset.small_raw_dataset import SmallRawDataset

from colipri.common.atomic import atomic_write_json, atomic_write_text, read_json
from colipri.common.errors import ColipriError
from colipri.common.names import LONGEST_CASE_NAME, printable
from colipri.dataset_conversion.base.images import place_image
from colipri.imageio.dicom.pixels import read_series
from colipri.imageio.reading import read_header, read_image
from colipri.inference.inputs import find_images
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.raw_dataset.verification.verify import verify_dataset
from colipri.run.convert_dataset import main as convert
from colipri.run.plan_and_preprocess import main as plan_and_preprocess
from colipri.run.preprocess import main as preprocess
from colipri.run.verify_dataset import main as verify

LATIN = os.fsdecode(b"M\xfcller")  # Latin-1 for Mueller with an umlaut


def _dataset(raw: Path, *cases: str, **description: Any) -> Path:
    folder = raw / NAME
    (folder / "imagesTr").mkdir(parents=True)
    content = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", **description}
    (folder / "dataset.json").write_text(json.dumps(content))
    for number, case in enumerate(cases):
        write_image(folder / "imagesTr" / "x_0000.nii.gz", phantom(number))
        (folder / "imagesTr" / "x_0000.nii.gz").rename(
            folder / "imagesTr" / f"{case}_0000{description.get('file_ending', '.nii.gz')}"
        )
    return folder


@pytest.mark.parametrize(
    "ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".gipl.gz"]
)
def test_any_bytes_in_a_name_can_be_read(tmp_path: Path, ending: str) -> None:
    """SimpleITK ends the process when it meets them."""
    array = phantom(0)
    write_image(tmp_path / f"plain{ending}", array)
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for file in tmp_path.glob("plain*"):
        shutil.copy(file, folder / file.name)
    path = (folder / f"plain{ending}").rename(folder / f"{LATIN}{ending}")
    expected_image = read_image(tmp_path / f"plain{ending}")
    np.testing.assert_array_equal(read_image(path).array, expected_image.array)
    assert read_header(path).shape == read_header(tmp_path / f"plain{ending}").shape
    (found,) = find_images(path)
    assert found.name == LATIN


def test_dicom_below_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / LATIN
    write_series(folder)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read_series(folder)), expected())
    assert [image.files for image in find_images(folder)] == [(folder,)]


def test_a_latin_1_name_in_a_data_set(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    _dataset(workspace.raw, "a", "b", "c", LATIN)
    arguments = ["-d", "901", "-np", "1", "-c", "3d_lowres", "-gpu_memory_target", "2"]
    arguments += ["-text_encoder", "scratch"]
    report = workspace.raw / "issues.json"
    assert verify(["-d", "901", "-np", "1", "--json", str(report)]) == 1
    assert "ERROR case_name_unusable" in capsys.readouterr().out
    codes = {issue["code"]: issue["case"] for issue in read_json(report)}
    assert codes["case_name_unusable"] == "M\\xfcller"
    assert plan_and_preprocess(arguments) == 1
    error = capsys.readouterr().err
    assert "M\\xfcller is not UTF-8" in error and len(error.splitlines()) == 1
    assert plan_and_preprocess([*arguments, "--verify_dataset_integrity", "--keep_going"]) == 0
    plans = read_json(workspace.preprocessed / NAME / "colipriPlans.json")
    assert plans["left_out"] == {"M\\xfcller": "case_name_unusable"}


def test_conversion_of_a_latin_1_name(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_image(source / "a.nii.gz", phantom(0))
    (source / "a.nii.gz").rename(source / f"{LATIN}.nii.gz")
    (source / f"{LATIN}.txt").write_text("No effusion.")
    arguments = ["folder", "-i", str(source), "-n", "T", "-np", "1"]
    assert convert([*arguments, "-d", "301"]) == 1
    error = capsys.readouterr().err
    assert "is not UTF-8; use --copy, --link or --compress" in error
    for number, mode in ((302, "--copy"), (303, "--compress"), (304, "--link")):
        assert convert([*arguments, "-d", str(number), mode]) == 0
        (case,) = load_raw_dataset(number).cases
        assert case.identifier == "Mller" and case.report is not None
        np.testing.assert_array_equal(read_image(case.images).array[0], phantom(0))
        assert verify_dataset(number, 1).errors == ()


def test_json_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {LATIN: [LATIN, "Müller"]})
    assert read_json(tmp_path / "a.json") == {LATIN: [LATIN, "Müller"]}
    assert printable(LATIN) == "M\\xfcller" and printable("Müller") == "Müller"


@pytest.mark.parametrize("length", [240, 200])
def test_long_names(workspace: Workspace, length: int) -> None:
    case = "x" * length
    _dataset(workspace.raw, case, "b")
    assert verify_dataset(NAME, 1).errors == ()
    write_plans(workspace.preprocessed, make_plans())
    assert preprocess(["-d", "901", "-np", "1"]) == 0
    folder = workspace.preprocessed / NAME / "colipriPlans_3d_lowres"
    assert (folder / f"{case}.b2nd").is_file()
    leftover = folder / (".partial-abcdefgh-" + f"{case}_tokens.b2nd"[-237:])
    leftover.write_bytes(b"half")
    assert preprocess(["-d", "901", "-np", "1"]) == 0
    assert not leftover.exists(), "what a killed run left under a shortened name"


def test_names_that_are_too_long(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    folder = _dataset(workspace.raw, "a")
    (folder / "cases.csv").write_text("case,image\n" + "é" * 121 + ",imagesTr/a_0000.nii.gz\n")
    assert verify(["-d", "901", "-np", "1"]) == 1
    assert f"242 bytes long, at most {LONGEST_CASE_NAME}" in capsys.readouterr().out
    with pytest.raises(ColipriError, match="242 bytes long"):
        load_raw_dataset(901)


def test_writing_under_the_longest_name(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127 + "x"):
        atomic_write_text(tmp_path / name, "content")
        assert (tmp_path / name).read_text() == "content"
    with pytest.raises(ColipriError, match="cannot write"):
        atomic_write_text(tmp_path / ("n" * 256), "content")
    with pytest.raises(ColipriError, match="cannot be reached"):
        read_image(tmp_path / ("n" * 300 + ".nii.gz"))


def test_names_with_dots(workspace: Workspace) -> None:
    cases = ("1.2.840.5", "1.2.840.5.1", "1.2.840", "scan.v2")
    folder = _dataset(workspace.raw, *cases)
    (folder / "reportsTr").mkdir()
    for case in cases:
        (folder / "reportsTr" / f"{case}.txt").write_text(f"No effusion in {case}.")
    data = load_raw_dataset(901)
    assert [case.identifier for case in data.cases] == sorted(cases)
    for case in data.cases:
        assert case.report == folder / "reportsTr" / f"{case.identifier}.txt"
    codes = {issue.code for issue in verify_dataset(901, 1).issues}
    assert not codes & {"image_unlisted", "report_unlisted", "image_missing", "no_reports"}
    write_plans(workspace.preprocessed, make_plans())
    assert preprocess(["-d", "901", "-np", "1"]) == 0
    manifest = read_json(workspace.preprocessed / NAME / "colipriPlans_3d_lowres" / "manifest.json")
    assert sorted(manifest["cases"]) == sorted(cases)


def test_a_copy_keeps_dots_and_the_format(tmp_path: Path) -> None:
    write_image(tmp_path / "1.2.840.5.nrrd", phantom(0))
    copied = place_image(tmp_path / "1.2.840.5.nrrd", tmp_path / "out" / "1.2.840_0000", "copy")
    assert copied.name == "1.2.840_0000.nrrd"


def test_file_ending_without_its_dot(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    _dataset(workspace.raw, "a", file_ending="nii.gz")
    assert verify(["-d", "901", "-np", "1"]) == 1
    assert "file_ending 'nii.gz' lacks its dot; write '.nii.gz'" in capsys.readouterr().out


def test_hidden_files(workspace: Workspace) -> None:
    data = SmallRawDataset(workspace.raw)
    (data.folder / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"\0\5\x16\7")
    (data.folder / "imagesTr" / ".DS_Store").write_bytes(b"")
    data.save()
    (issue,) = verify_dataset(data.name, 1).issues
    assert issue.code == "image_hidden" and "._a_0000.nii.gz" in issue.message
