"""Presets: what preprocessing yields equals each project's rule, computed here independently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion import real_scans
from experiment_planning.fingerprints import ct_rate_like
from scipy.ndimage import map_coordinates

from colipri.common.errors import ColipriError
from colipri.experiment_planning.planner import ColipriPlanner
from colipri.experiment_planning.presets import planner_like, preset_names
from colipri.plans.plans import Plans
from colipri.run.plan_experiment import build_parser

# Array axes, spacing along them, size, HU before resampling, scaling, padding: written down from
# the projects' own code, and not from presets.json.
Rule = tuple[str, Sequence[float], Sequence[int], Callable[..., Any], Callable[..., Any], float]


def _imagenet(x: np.ndarray) -> np.ndarray:
    unit = np.clip((x + 1150) / 1500, 0, 1)
    return (unit - (0.485 + 0.456 + 0.406) / 3) / ((0.229 + 0.224 + 0.225) / 3)


RULES: dict[str, Rule] = {
    "colipri": (
        "SAR",
        (2, 2, 2),
        (192, 192, 192),
        lambda x: x,
        lambda x: np.clip(x, -1000, 1000) / 1000,
        -1,
    ),
    "ct-clip": (
        "SLP",
        (1.5, 0.75, 0.75),
        (240, 480, 480),
        lambda x: np.clip(x, -1000, 1000),
        lambda x: x / 1000,
        -1,
    ),
    "merlin": (
        "RAS",
        (1.5, 1.5, 3),
        (224, 224, 160),
        lambda x: x,
        lambda x: (np.clip(x, -1000, 1000) + 1000) / 2000,
        0,
    ),
    "fvlm": (
        "SPL",
        (3, 1, 1),
        (112, 256, 352),
        lambda x: x,
        lambda x: (np.clip(x, -1150, 350) + 1150) / 1500,
        0,
    ),
    "hlip": (
        "SPL",
        (3, 1, 1),
        (112, 336, 336),
        lambda x: x,
        _imagenet,
        float(_imagenet(np.array(-1150.0))),
    ),
}


def _real_piece(path: Path, spacing: float) -> Path:
    """24^3 voxels of a real chest, as if measured ``spacing`` mm apart, in unusual axes.

    Sizes are then whole numbers at every preset's spacing, and no project's rounding matters.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(sitk.ReadImage(str(real_scans()[0])))
    middle = [length // 2 - 12 for length in array.shape]
    piece = array[tuple(slice(start, start + 24) for start in middle)]
    assert piece.std() > 100, "lung and tissue, not only air"
    image = sitk.GetImageFromArray(np.ascontiguousarray(piece))
    image.SetSpacing((spacing,) * 3)
    sitk.WriteImage(sitk.DICOMOrient(image, "IRP"), str(path))
    return path


def _expected(path: Path, rule: Rule) -> np.ndarray:
    """The project's network input."""
    import SimpleITK as sitk

    axes, spacing, size, before, scale, padding = rule
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), axes[::-1])  # arrays are z, y, x
    array = before(sitk.GetArrayFromImage(image).astype(np.float64))
    shape = [
        int(n * s / t) for n, s, t in zip(array.shape, image.GetSpacing(), spacing, strict=True)
    ]
    # centres of the new voxels in old ones: align_corners=False
    places = [
        (np.arange(new) + 0.5) * old / new - 0.5
        for old, new in zip(array.shape, shape, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    resampled = scale(map_coordinates(array, grid, order=1, mode="nearest"))
    for axis, wanted in enumerate(size):
        length = resampled.shape[axis]
        if length > wanted:
            start = (length - wanted) // 2
            resampled = np.take(resampled, range(start, start + wanted), axis)
        else:
            widths = [(0, 0)] * 3
            widths[axis] = ((wanted - length) // 2, wanted - length - (wanted - length) // 2)
            resampled = np.pad(resampled, widths, constant_values=padding)
    return resampled


def _plans(name: str) -> Plans:
    planner = planner_like(ColipriPlanner, name)(ct_rate_like(), 2000.0)
    return planner.plan()


@pytest.mark.parametrize(
    ("name", "spacing"),
    [*((name, 4.0) for name in RULES), ("merlin", 16.0), ("hlip", 16.0)],  # padded; cropped
)
def test_a_real_scan_becomes_what_the_project_would_make_of_it(
    name: str, spacing: float, tmp_path: Path
) -> None:
    import torch

    from colipri.dataloading.normalization import normalize_on_device
    from colipri.inference.volume import prepare_files
    from colipri.inference.windows import plan_windows

    path = _real_piece(tmp_path / "scan.nii.gz", spacing)
    plans = _plans(name)
    configuration = plans.configuration("3d_lowres")
    size = configuration.patch_size
    volume = prepare_files(path, "scan", plans, configuration)
    windows = plan_windows(
        [min(n, s) for n, s in zip(volume.shape, size, strict=True)], size, [8] * 3
    )
    start = [
        (n - s) // 2 if n > s else first
        for n, s, first in zip(volume.shape, size, windows.start, strict=True)
    ]
    stored, _ = volume.crop(start, size)
    result = normalize_on_device(torch.from_numpy(stored[None]), plans, configuration)[0, 0].numpy()
    expected = _expected(path, RULES[name])
    assert result.shape == expected.shape == tuple(RULES[name][2])
    numbers = plans.foreground_intensity_properties_per_channel["0"]
    np.testing.assert_allclose(result, expected, atol=0.51 / numbers.std)  # stored as whole HU
    assert expected.std() > 0.02 and np.unique(np.rint(stored)).size > 500


@pytest.mark.parametrize("name", RULES)
def test_presets_keep_the_plan_whole(name: str) -> None:
    plans = _plans(name)
    assert plans.planner == "ColipriPlanner" and plans.like
    for configuration in plans.configurations.values():
        assert configuration.spacing == list(RULES[name][1])
        assert configuration.rationale["spacing"].startswith("as ")


def test_the_command_knows_the_presets() -> None:
    assert set(preset_names()) == set(RULES)
    for name in preset_names():
        assert build_parser().parse_args(["-d", "1", "--like", name]).like == name
        assert name in build_parser().format_help()


def test_presets_change_what_is_stored() -> None:
    """A store made under one plan is not taken for another's."""
    from colipri.preprocessing.records import plans_digest

    plans = _plans("colipri")
    digest = plans_digest(plans, plans.configuration("3d_lowres"))
    for key, value in (("crop_to_body", True), ("hounsfield_range", [-1024, 3071])):
        changed = replace(plans.configuration("3d_lowres"), **{key: value})
        assert plans_digest(plans, changed) != digest


def test_what_a_preset_cannot_do() -> None:
    with pytest.raises(ColipriError, match="no preset is called 'clip'; known: colipri, ct-clip"):
        planner_like(ColipriPlanner, "clip")
    fingerprint = {**ct_rate_like(), "channel_names": {"0": "MR"}}
    with pytest.raises(ColipriError, match="takes one CT channel, the data set has MR"):
        planner_like(ColipriPlanner, "merlin")(fingerprint, 80.0).plan()
