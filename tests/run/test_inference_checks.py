"""Files that are scored are checked first: a model answers for a mask as for a scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import DATASET

from colipri.common.errors import ColipriError
from colipri.inference.inputs import ImageInput, find_images
from colipri.inference.predictor import ColipriPredictor
from colipri.run.encode import main as encode
from colipri.run.retrieve import main as retrieve
from colipri.run.zero_shot import main as zero_shot

Command = Callable[[list[str]], int]
COMMANDS: list[tuple[Command, list[str]]] = [
    (zero_shot, ["-f", "emphysema"]),
    (encode, ["-o", "OUT.npz"]),
    (retrieve, ["-q", "emphysema"]),
]


def _scan(tiny: Any) -> sitk.Image:
    return sitk.ReadImage(str(tiny.raw / DATASET / "imagesTr" / "case_000_0000.nii.gz"))


def _write(folder: Path, name: str, image: sitk.Image, change: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    if change is not None:
        changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
        changed.CopyInformation(image)
        image = changed
    sitk.WriteImage(image, str(folder / name))
    return folder / name


WRONG: dict[str, tuple[Any, str]] = {
    "a mask": (lambda a: (a > 0).astype(np.uint8), "hu_normalised"),
    "not rescaled": (lambda a: a + np.int16(1024), "hu_not_rescaled"),
    "unsigned": (lambda a: a.astype(np.uint16), "hu_unsigned"),
    "constant": (np.zeros_like, "image_constant"),
    "8 bits": (lambda a: ((a.clip(-200, 200) + 200) * 0.6).astype(np.uint8), "hu_windowed"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize(("command", "more"), COMMANDS)
def test_wrong_values_are_refused(
    tiny: Any,
    tmp_path: Path,
    what: str,
    command: Command,
    more: list[str],
    capsys: pytest.CaptureFixture,
) -> None:
    change, code = WRONG[what]
    path = _write(tmp_path, "a.nii.gz", _scan(tiny), change)
    arguments = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(path)]
    arguments += [part.replace("OUT", str(tmp_path / "out")) for part in more]
    assert command(arguments) == 1
    printed = capsys.readouterr()
    assert code in printed.err + printed.out and "--no_checks" in printed.err + printed.out
    assert not (tmp_path / "out.npz").exists()
    assert command([*arguments, "--no_checks"]) == 0
    assert f"a: {code}" in capsys.readouterr().out


def test_a_thin_slab_is_scored_with_a_warning(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = _write(tmp_path, "a.nii.gz", _scan(tiny)[:, :, 10:12])
    arguments = ["-m", str(tiny.checkpoint), "-i", str(path), "-f", "emphysema"]
    assert zero_shot([*arguments, "-device", "cpu", "-o", str(tmp_path / "o.json")]) == 0
    assert "a: extent_small: 2 x 26 x 40 voxels" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "o.json").read_text())["images"]) == 1


def test_impossible_sizes_are_refused(tiny: Any, tmp_path: Path) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    image = _scan(tiny)
    for spacing, code in ((80.0, "spacing_absurd"), (0.01, "spacing_absurd")):
        image.SetSpacing((spacing,) * 3)
        path = _write(tmp_path, "a.nii.gz", image)
        with pytest.raises(ColipriError, match=f"a: {code}"):
            predictor.prepare(ImageInput("a", (path,)))
    array = sitk.GetArrayFromImage(_scan(tiny)).transpose()
    nifti: Any = nibabel.Nifti1Image(array, None)
    nifti.header["pixdim"][1:4] = 0
    (tmp_path / "b.nii").write_bytes(nifti.to_bytes())
    with pytest.raises(ColipriError, match="b: spacing_missing"):
        predictor.prepare(ImageInput("b", (tmp_path / "b.nii",)))


def test_others_of_a_folder_are_scored(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "scans"
    _write(folder, "mask.nii.gz", _scan(tiny), WRONG["a mask"][0])
    _write(folder, "scan.nii.gz", _scan(tiny))
    output = tmp_path / "o.json"
    arguments = [
        "-m",
        str(tiny.checkpoint),
        "-i",
        str(folder),
        "-f",
        "emphysema",
        "-o",
        str(output),
    ]
    assert zero_shot([*arguments, "-o", str(output), "-device", "cpu"]) == 1
    result = json.loads(output.read_text())
    assert [entry["image"] for entry in result["images"]] == ["scan"]
    assert [entry["image"] for entry in result["problems"]] == ["mask"]
    assert "hu_normalised" in capsys.readouterr().err


def test_a_scan_is_scored_without_a_word(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    assert zero_shot(["-m", str(tiny.checkpoint), "-i", str(path), "-f", "emphysema"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("case_001: ")]


def test_pairs_of_files_are_one_image(tmp_path: Path) -> None:
    image = nibabel.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "a.hdr")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "b.nii")
    assert [image.name for image in find_images(tmp_path)] == ["a", "b"]
    assert find_images(tmp_path)[0].files == (tmp_path / "a.hdr",)
