"""Bad scans, weights and prompts: one line each, the other inputs go on, the exit code is not 0."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_writing import SCANS, write_series
from PIL import Image

from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.run import encode, heatmap, retrieve, zero_shot

SCAN = SCANS / "lidc_0314.nii.gz"


def _save(array: np.ndarray, file: Path, spacing: float = 3.0) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([3.0, 3.0, spacing, 1.0])), file)


def _voxels() -> np.ndarray:
    return np.asarray(nib.load(SCAN).dataobj)


def _photograph(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "bad.jpg")


def _screenshot(folder: Path) -> None:
    Image.new("L", (64, 64)).save(folder / "bad.PNG")


def _mr(folder: Path) -> None:
    """No DICOM header says so: the values alone, as gamma-distributed as those of MR."""
    values = np.random.default_rng(0).gamma(2, 120, (60, 60, 60)).astype(np.int16)
    _save(values, folder / "bad.nii.gz")


def _shifted(folder: Path) -> None:
    _save((_voxels().astype(np.int16) + 1024).clip(0), folder / "bad.nii.gz")


def _one_slice(folder: Path) -> None:
    _save(_voxels()[:, :, 40:41], folder / "bad.nii.gz")


def _three_thousand_slices(folder: Path) -> None:
    few = _voxels()[:, :, 40:41].astype(np.int16)[::4, ::4]
    _save(np.tile(few, (1, 1, 3000)), folder / "bad.nii")


def _mixed_series(folder: Path) -> None:
    write_series(folder / "bad", range(30, 60))
    for file in write_series(folder / "other", range(30, 60), series="r2"):
        file.rename(folder / "bad" / f"second_{file.name}")
    (folder / "other").rmdir()


def _mr_dicom(folder: Path) -> None:
    write_series(folder / "bad", range(30, 60), Modality="MR")


def _colour(folder: Path) -> None:
    rgb = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    write_series(folder / "bad", range(30, 34), **rgb)


def _empty_file(folder: Path) -> None:
    (folder / "bad.nii.gz").touch()


BAD: list[tuple[Callable[[Path], None], str]] = [
    (_photograph, "is a picture, a page or a film, not a scan"),
    (_screenshot, "is a picture, a page or a film, not a scan"),
    (_mr, "no voxel is below -30 HU, where fat and air are"),
    (_shifted, "bad: hu_"),
    (_one_slice, "is a single slice"),
    (_three_thousand_slices, "extent_absurd: 3000 x"),
    (_mixed_series, "holds 2 DICOM series"),
    (_mr_dicom, "its DICOM modality is MR"),
    (_colour, "a colour picture"),
    (_empty_file, "bad.nii.gz"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_a_bad_scan_is_one_line_and_the_good_one_is_scored(
    tiny: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    message: str,
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(SCAN, scans / "good.nii.gz")
    make(scans)
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans)]
    assert encode.main([*words, "-o", str(tmp_path / "a.npz")]) == 1
    found = capsys.readouterr()
    assert "1 images" in found.out
    assert message in found.err and len(found.err.splitlines()) == 1, found.err


def test_every_command_on_images_says_so(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(SCAN, tmp_path / "good.nii.gz")
    _photograph(tmp_path)
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(tmp_path)]
    for main, more in (
        (zero_shot.main, ["-f", "effusion"]),
        (retrieve.main, ["-q", "effusion"]),
        (heatmap.main, ["-f", "effusion", "-o", str(tmp_path / "maps")]),
    ):
        assert main([*words, *more]) == 1
        found = capsys.readouterr()
        assert "good" in found.out and "not a scan" in found.err
        assert len(found.err.splitlines()) == 1


def test_a_scan_that_is_no_ct_is_scored_if_forced(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _mr(tmp_path)
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(tmp_path)]
    assert encode.main([*words, "-o", str(tmp_path / "a.npz")]) == 1
    assert encode.main([*words, "-o", str(tmp_path / "a.npz"), "--force"]) == 0
    assert "no voxel is below -30 HU" in capsys.readouterr().out


@pytest.fixture(scope="module")
def predictor(tiny_folders: Any) -> ColipriPredictor:
    return ColipriPredictor.from_checkpoint(tiny_folders.checkpoint)


@pytest.mark.parametrize("text", ["胸腔积液", "🫁", "\u202e\u202e…"])
def test_a_text_without_a_known_word_is_refused(predictor: ColipriPredictor, text: str) -> None:
    with pytest.raises(ColipriError, match="the model knows no word of") as caught:
        predictor.require_known_words(["effusion", text])
    assert "\u202e" not in str(caught.value)  # which would turn the line around


def test_unknown_words_and_long_texts_are_said(
    predictor: ColipriPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "colipri"):
        predictor.require_known_words(["effusion 積液", "effusion " * 10_000])
    assert "2 of the" in caplog.text and "tokens of 'effusion 積液' are unknown" in caplog.text
    assert "the model reads the first 64" in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 250


def test_commands_refuse_unknown_words(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(SCAN)]
    for main, more in (
        (zero_shot.main, ["-f", "胸腔积液"]),
        (retrieve.main, ["-q", "胸腔积液"]),
        (heatmap.main, ["-f", "胸腔积液", "-o", str(tmp_path / "a.nii.gz")]),
    ):
        assert main([*words, *more]) == 1
        assert "the model knows no word of" in capsys.readouterr().err
    assert zero_shot.main([*words, "-f", "effusion " * 10_000]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 250
