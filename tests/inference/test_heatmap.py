"""Heat maps: geometry, air left out, viewing direction."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny_dataset import PLANS

from colipri.common.errors import ColipriError
from colipri.inference.heatmap import (
    inside_of_body,
    overlay_planes,
    slice_planes,
    strongest_place,
    to_grey,
    token_similarity,
    upsampled,
    voxel_map,
)
from colipri.inference.volume import PreparedVolume
from colipri.plans.plans import Plans


def test_similarity_is_a_difference_of_cosines() -> None:
    dense = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    yes, no = torch.tensor([5.0, 0.0]), torch.tensor([0.0, 0.1])
    assert token_similarity(dense, yes) == pytest.approx([1, 0, np.sqrt(0.5)])
    assert token_similarity(dense, yes, no) == pytest.approx([1, -1, 0])


def test_map_peaks_at_the_centre_of_its_token() -> None:
    grid, patch = (4, 5, 6), (8, 8, 8)
    positions = np.stack(np.unravel_index(np.arange(120), grid), axis=1)
    values = np.zeros(120)
    values[np.ravel_multi_index((1, 3, 2), grid)] = 1.0
    heat = voxel_map(values, positions, grid, patch)
    assert heat.shape == (32, 40, 48)
    peak = np.argwhere(heat >= heat.max() - 1e-6).mean(axis=0)
    assert peak == pytest.approx([1.5 * 8 - 0.5, 3.5 * 8 - 0.5, 2.5 * 8 - 0.5])
    centres = heat[4::8, 4::8, 4::8]
    assert np.argmax(centres) == np.ravel_multi_index((1, 3, 2), grid)


def test_air_stays_unknown_and_does_not_dilute() -> None:
    """A lone kept token keeps its full value to its borders."""
    heat = voxel_map(np.array([2.0]), np.array([[1, 1, 1]]), (3, 3, 3), (8, 4, 2))
    assert heat.shape == (24, 12, 6)
    assert np.isfinite(heat).sum() == 8 * 4 * 2
    assert heat[8:16, 4:8, 2:4] == pytest.approx(np.full((8, 4, 2), 2.0))


def _phantom(shape: tuple[int, int, int] = (48, 64, 64)) -> PreparedVolume:
    """An elliptic trunk of water with two lungs in air, at 2 mm, as it is stored."""
    _, a, b = np.ogrid[tuple(map(slice, shape))]
    image = np.full(shape, -1024, dtype=np.int16)
    image[np.broadcast_to(((a - 32) / 20) ** 2 + ((b - 32) / 27) ** 2 < 1, shape)] = 40
    for side in (20, 44):
        lung = ((a - 32) / 12) ** 2 + ((b - side) / 8) ** 2 < 1
        image[np.broadcast_to(lung, shape)] = -920
    body = np.ones([-(-n // 4) for n in shape], dtype=np.uint8)
    properties = {"body_grid": body, "cell_size": (4, 4, 4), "pad_value": -1024}
    return PreparedVolume("phantom", image[None], {**properties, "token_patch_size": (8, 8, 8)})


def test_heat_lies_inside_the_body_only() -> None:
    """Tokens at the skin are mostly air: over half of a map lay in it, and so did its maximum."""
    plans = Plans.from_dict(json.loads(PLANS.read_text()))
    configuration = replace(plans.configuration("3d_lowres"), spacing=[2.0, 2.0, 2.0])
    volume = _phantom()
    size, start = (48, 64, 64), (0, 0, 0)
    inside = inside_of_body(volume, start, size, plans, configuration)
    image = volume.array[0]
    assert not inside[image == -1024].any()
    assert inside[image == -920].all() and inside[image == 40].mean() > 0.99
    grid = (6, 8, 8)
    positions = np.stack(np.unravel_index(np.arange(6 * 8 * 8), grid), axis=1)
    corner = np.zeros(len(positions))
    corner[np.ravel_multi_index((3, 1, 4), grid)] = 1.0  # a token that the skin runs through
    heat = voxel_map(corner, positions, grid, (8, 8, 8), inside)
    assert image[strongest_place(heat)] == 40
    assert np.array_equal(np.isfinite(heat), inside)
    moved = inside_of_body(volume, (-8, 8, 0), (48, 64, 64), plans, configuration)
    assert np.array_equal(moved[8:, :56], inside[:40, 8:]) and not moved[:8].any()


def test_map_without_any_inside_keeps_its_tokens() -> None:
    heat = voxel_map(
        np.array([2.0]), np.array([[0, 0, 0]]), (1, 1, 1), (4, 4, 4), np.zeros((4, 4, 4), bool)
    )
    assert np.isfinite(heat).all()


def test_radiological_view() -> None:
    """Superior above, anterior above or left, the patient's right on the left."""
    volume = np.zeros((4, 5, 6))
    volume[3, :, :] += 1  # most superior
    volume[:, 4, :] += 10  # most anterior
    volume[:, :, 5] += 100  # most right
    axial, coronal, sagittal = slice_planes(volume, (3.0, 2.0, 1.0), (2, 2, 2))
    assert axial[0] == "axial" and axial[1].shape == (5, 6) and axial[2] == (2.0, 1.0)
    assert (axial[1][0] >= 10).all() and (axial[1][:, 0] >= 100).all()
    assert coronal[1].shape == (4, 6) and coronal[2] == (3.0, 1.0)
    assert coronal[1][0, 3] == 1 and (coronal[1][:, 0] >= 100).all()
    assert sagittal[1].shape == (4, 5) and sagittal[2] == (3.0, 2.0)
    assert sagittal[1][0, 3] == 1 and (sagittal[1][:, 0] >= 10).all()


def test_overlay_colours_only_where_heat_is() -> None:
    random = np.random.default_rng(0)
    image = random.uniform(-1000, 400, (16, 24, 32)).astype(np.float32)
    heat = np.full(image.shape, np.nan, dtype=np.float32)
    heat[4:12, 4:20, 8:16] = random.random((8, 16, 8))
    heat[6, 10, 12] = 5
    assert strongest_place(heat) == (6, 10, 12)
    planes = overlay_planes(image, heat, (2.0, 1.0, 1.0))
    assert [plane["name"] for plane in planes] == ["axial", "coronal", "sagittal"]
    axial = planes[0]["pixels"][::-1, ::-1].astype(int)  # back to array order
    outside = np.isnan(heat[6])
    grey = to_grey(image[6])[outside]
    assert np.array_equal(axial[outside], np.repeat(grey[:, None], 3, axis=1))
    assert axial[10, 12].std() > 10  # coloured


def test_grey_window() -> None:
    assert to_grey(np.array([-2000.0, -1000, -300, 400, 3000])).tolist() == [0, 0, 127, 255, 255]
    free = to_grey(np.linspace(5, 6, 101), None)
    assert free[0] == 0 and free[-1] == 255


def test_bad_input() -> None:
    empty = np.full((4, 4, 4), np.nan)
    with pytest.raises(ColipriError, match="empty"):
        overlay_planes(np.zeros((4, 4, 4)), empty, (1, 1, 1))
    with pytest.raises(ColipriError, match="do not fit"):
        overlay_planes(np.zeros((4, 4, 5)), empty, (1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "patch"), [((8, 8, 8), (8, 8, 8)), ((1, 3, 5), (4, 2, 8)), ((2, 1, 4), (1, 8, 3))]
)
def test_token_values_are_spread_as_scipy_does(
    shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = ndimage.zoom(values, patch, order=1, mode="nearest", grid_mode=True)
    found = upsampled(values, patch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
