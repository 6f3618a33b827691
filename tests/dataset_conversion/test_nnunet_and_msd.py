"""nnU-Net raw data sets and Decathlon tasks, laid out by the tests from real scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from conversion import real_scans, report_rows, summary

from colipri.imageio.reading import read_image
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.run.convert_dataset import main


def convert(name: str, source: Path, *arguments: str) -> int:
    return main([name, "-i", str(source), "-d", "6", "-n", "N", "-np", "1", *arguments])


def converted(name: str, source: Path, *arguments: str) -> RawDataset:
    assert convert(name, source, *arguments) == 0
    return load_raw_dataset(6)


def write(folder: Path, description: dict[str, Any], *names: str) -> Path:
    """Real scans at the given names, and dataset.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_scans()[number % 6], folder / name)
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lung": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "licence": "CC BY 4.0",
}


def test_an_nnunet_data_set(workspace: Workspace, tmp_path: Path) -> None:
    names = ["imagesTr/a_0000.nii.gz", "imagesTr/b_1_0000.nii.gz", "imagesTs/c_0000.nii.gz"]
    source = write(tmp_path / "s", NNUNET, *names, "labelsTr/a.nii.gz", "imagesTr/noise.nii.gz")
    data = converted("nnunet", source)
    assert [(c.identifier, c.split) for c in data.cases] == [("a", ""), ("b_1", ""), ("c", "test")]
    assert [case.images for case in data.cases] == [(source / name,) for name in names]
    assert data.dataset_json["licence"] == "CC BY 4.0"
    assert not list(data.folder.rglob("*.nii.gz")), "nothing is copied"
    assert [r["row"] for r in report_rows(data.folder) if r["status"] == "skipped"] == [
        "imagesTr/noise.nii.gz"
    ]
    summary(data.folder)


def test_nnunet_channels_must_be_complete(workspace: Workspace, tmp_path: Path) -> None:
    description = {**NNUNET, "channel_names": {"0": "CT", "1": "PET"}}
    names = ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b_0001.nii.gz"]
    source = write(tmp_path / "s", description, *names)
    assert convert("nnunet", source) == 1
    data = converted("nnunet", source, "--keep_going")
    assert [len(case.images) for case in data.cases] == [2]
    assert list(summary(data.folder)["reasons"]) == ["channels are missing"]


def test_nnunet_entries_by_path(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "far", {}, "x.nii.gz")
    entries = {
        "one": {"images": [str(tmp_path / "far" / "x.nii.gz")], "label": "y.nii.gz"},
        "two": {"images": ["../../etc/passwd"]},
        "three": {"label": "y.nii.gz"},
    }
    source = write(tmp_path / "s", {**NNUNET, "dataset": entries})
    data = converted("nnunet", source, "--keep_going")
    assert [case.identifier for case in data.cases] == ["one"]
    assert len(summary(data.folder)["reasons"]) == 2


def test_a_decathlon_task(workspace: Workspace, tmp_path: Path) -> None:
    description = {
        "name": "Lung",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "CT"},
        "training": [
            {"image": "./imagesTr/lung_001.nii.gz", "label": "./labelsTr/lung_001.nii.gz"},
            {"image": "./imagesTr/lung_002.nii.gz", "label": "./labelsTr/lung_002.nii.gz"},
        ],
        "test": ["./imagesTs/lung_003.nii.gz"],
    }
    names = ["imagesTr/lung_001.nii.gz", "imagesTs/lung_003.nii.gz", "imagesTr/._lung_001.nii.gz"]
    source = write(tmp_path / "Task06_Lung", description, *names)
    data = converted("msd", source, "--keep_going")
    assert [(c.identifier, c.split) for c in data.cases] == [("lung_001", ""), ("lung_003", "test")]
    assert data.cases[0].images == (source / names[0],)
    assert data.dataset_json["licence"] == "CC-BY-SA 4.0"
    assert list(summary(data.folder)["reasons"]) == ["the image does not exist"]


def test_a_task_with_channels_in_one_file(workspace: Workspace, tmp_path: Path) -> None:
    import SimpleITK as sitk

    one = sitk.ReadImage(str(real_scans()[0]))
    joined = sitk.JoinSeries([one, one + 7])
    description = {
        "modality": {"0": "T2", "1": "ADC"},
        "training": [{"image": "imagesTr/p_01.nii.gz"}, {"image": "imagesTr/p_02.nii.gz"}],
    }
    source = write(tmp_path / "Task05_Prostate", description, "imagesTr/p_02.nii.gz")
    sitk.WriteImage(joined, str(source / "imagesTr" / "p_01.nii.gz"))
    data = converted("msd", source, "--keep_going")
    (case,) = data.cases
    assert [path.name for path in case.images] == ["p_01_0000.nii.gz", "p_01_0001.nii.gz"]
    image = read_image(case.images)
    expected = read_image(real_scans()[0])
    np.testing.assert_array_equal(image.array[0], expected.array[0])
    np.testing.assert_array_equal(image.array[1], expected.array[0] + 7)
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
    assert list(summary(data.folder)["reasons"]) == ["the image does not have 2 channels"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nnunet", "{", "is not valid JSON"),
        ("nnunet", "[]", "is not a JSON object"),
        ("nnunet", "{}", "neither channel_names nor modality"),
        ("nnunet", '{"channel_names": {"0": "CT"}}', "has no file_ending"),
        ("nnunet", '{"channel_names": {"1": "CT"}}', "must be numbered"),
        ("msd", '{"modality": {"0": "CT"}}', "has no list 'training'"),
    ],
)
def test_broken_descriptions(
    name: str,
    content: str,
    message: str,
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "dataset.json").write_text(content)
    assert convert(name, tmp_path / "s") == 1
    assert message in capsys.readouterr().err


def test_real_nnunet_names(workspace: Workspace, shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "Dataset004_Hippocampus"
    shutil.copytree(shared_data / "msd_hippocampus_subset", source)
    description = {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(description))
    data = converted("nnunet", source)
    assert len(data.cases) == 80 and data.channel_names == {"0": "MRI"}
