"""One wrong spacing among few cases does not decide the plan; 2D images are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from preprocessing.small_dataset import NAME, phantom, write_image, write_raw_dataset

from colipri.common.errors import ColipriError
from colipri.experiment_planning.fingerprint import extract_fingerprint
from colipri.experiment_planning.geometry import plan_geometry, spacing_outliers
from colipri.imageio.errors import NotThreeDimensionalError
from colipri.imageio.reading import read_image
from colipri.preprocessing.image import resample_to_spacing
from colipri.run.plan_and_preprocess import main as plan_and_preprocess

ARGUMENTS = ["-d", "901", "-np", "1", "-gpu_memory_target", "2", "-text_encoder", "scratch"]


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    """Six phantoms for training and validation, 6 x 5 x 4 mm."""
    return write_raw_dataset(workspace.raw)


def _spacing(workspace: Workspace) -> list[float]:
    content = json.loads((workspace.preprocessed / NAME / "colipriPlans.json").read_text())
    spacing: list[float] = content["configurations"]["3d_lowres"]["spacing"]
    return spacing


@pytest.mark.parametrize("factor", [(10.0, 10.0, 10.0), (8.0, 1.0, 1.0), (1.0, 4.0, 4.0)])
def test_one_wrong_spacing_is_named_and_set_aside(
    raw: Path, workspace: Workspace, factor: tuple[float, ...], capsys: pytest.CaptureFixture
) -> None:
    assert plan_and_preprocess([*ARGUMENTS, "--no_pp"]) == 0
    right = _spacing(workspace)
    wrong = tuple(step * times for step, times in zip((6.0, 5.0, 4.0), factor, strict=True))
    write_image(raw / "imagesTr" / "c_0000.nii.gz", phantom(2), wrong)  # type: ignore[arg-type]
    capsys.readouterr()
    assert plan_and_preprocess([*ARGUMENTS, "--no_pp"]) == 0
    shown = capsys.readouterr().out
    assert "case c: its spacing of" in shown and "is probably wrong" in shown
    assert "planned without c, whose spacing may be wrong" in " ".join(shown.split())
    np.testing.assert_allclose(_spacing(workspace), right, rtol=0.05)
    found = extract_fingerprint(NAME, 1)
    assert [outlier["case"] for outlier in found["spacing_outliers"]] == ["c"]
    assert found["num_cases"] == 6, "it is not left out"


def test_longer_scans_and_thicker_slices_are_no_outliers() -> None:
    usual = [[1.0, 0.7, 0.7]] * 6
    extents, shapes = [[300.0, 250.0, 350.0]] * 6, [[300, 357, 500]] * 6
    whole_body = ([1.0, 1.0, 1.0], [1800.0, 300.0, 500.0], [1800, 300, 500])
    thick = ([5.0, 0.7, 0.7], [300.0, 250.0, 350.0], [60, 357, 500])
    wrong = ([10.0, 7.0, 7.0], [3000.0, 2500.0, 3500.0], [300, 357, 500])
    for case, expected in ((whole_body, []), (thick, []), (wrong, [6])):
        rows = [[*many, one] for many, one in zip((usual, extents, shapes), case, strict=True)]
        assert spacing_outliers(*rows) == expected
    two = [[*many, one, one] for many, one in zip((usual, extents, shapes), wrong, strict=True)]
    assert spacing_outliers(*two) == [], "two of eight are no mistake but the data"
    many = [
        [*rows * 10, one, one] for rows, one in zip((usual, extents, shapes), wrong, strict=True)
    ]
    assert spacing_outliers(*many) == [60, 61], "two of 62 are less than 5 %"
    assert spacing_outliers(*[rows[:2] for rows in rows]) == []


def test_old_fingerprints_have_no_list() -> None:
    fingerprint: dict[str, Any] = {
        "spacings": [[2.0, 2.0, 2.0]] * 4,
        "body_extents_mm": [[300.0, 250.0, 350.0]] * 4,
    }
    with_list = {**fingerprint, "spacing_outliers": []}
    assert plan_geometry(fingerprint, 2000, True, "x") == plan_geometry(with_list, 2000, True, "x")


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((1, 36, 44), (6.0, 5.0, 4.0)),
        ((1, 36, 44), (999.0, 1.0, 1.0)),
        ((3, 36, 44), (999.0, 1, 1)),
    ],
)
def test_two_dimensional_images_are_refused_before_planning(
    raw: Path,
    workspace: Workspace,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    capsys: pytest.CaptureFixture,
) -> None:
    for path in (raw / "imagesTr").iterdir():
        write_image(path, phantom(0, (8, 36, 44))[2 : 2 + shape[0]], spacing)
    with pytest.raises(NotThreeDimensionalError, match="it is two-dimensional"):
        read_image(raw / "imagesTr" / "a_0000.nii.gz")
    assert plan_and_preprocess(ARGUMENTS) == 1
    error = capsys.readouterr().err
    assert "two-dimensional" in error and "6 of 6 cases" in error
    assert plan_and_preprocess([*ARGUMENTS, "--verify_dataset_integrity"]) == 1
    assert "ERROR image_not_3d (7)" in capsys.readouterr().out
    assert not (workspace.preprocessed / NAME / "colipriPlans.json").exists()


def test_a_spacing_that_would_need_all_memory_is_refused() -> None:
    array = np.zeros((1, 64, 64, 64), np.float32)
    with pytest.raises(ColipriError, match=r"at \[1.0, 1.0, 1.0\] mm the image would have 64000"):
        resample_to_spacing(
            array, [1000.0] * 3, [1.0] * 3, "resample_data_or_seg_to_shape", {"is_seg": False}
        )
