"""The body grid and the tokens of crops against their definition, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from colipri.preprocessing.body_grid import (
    body_grid_of_mask,
    cell_size_of,
    centre_start,
    crop_padded,
    tokens_of_crop,
)

TOKEN = (8, 8, 8)
CELL = cell_size_of(TOKEN)


def _tokens_by_voxels(
    mask: np.ndarray, start: tuple[int, ...], size: tuple[int, ...]
) -> np.ndarray:
    """Whether each token patch of the crop holds a voxel of the mask: the definition itself."""
    padded = np.pad(mask, 64)
    crop = padded[tuple(slice(64 + s, 64 + s + n) for s, n in zip(start, size, strict=True))]
    blocks = crop.reshape(size[0] // 8, 8, size[1] // 8, 8, size[2] // 8, 8)
    return blocks.any(axis=(1, 3, 5))


def _blob(shape: tuple[int, int, int]) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (
        sum(
            ((a - c) / r) ** 2
            for a, c, r in zip(axes, (0.1, -0.2, 0.05), (0.7, 0.5, 0.6), strict=True)
        )
        < 1
    )


@pytest.mark.parametrize("start", [(0, 0, 0), (4, 8, 12), (-8, -4, 0), (20, 16, 40)])
def test_tokens_are_exact_where_crops_start_on_cells(start: tuple[int, int, int]) -> None:
    mask = _blob((40, 52, 61))
    # a mask that is constant within cells: then the grid is the mask, and tokens must be exact
    mask = np.repeat(np.repeat(np.repeat(mask[::4, ::4, ::4], 4, 0), 4, 1), 4, 2)[:40, :52, :61]
    body_grid = body_grid_of_mask(mask, mask.shape, CELL)
    size = (32, 24, 40)
    assert np.array_equal(
        tokens_of_crop(body_grid, CELL, start, size, TOKEN), _tokens_by_voxels(mask, start, size)
    )


@pytest.mark.parametrize("start", [(1, 2, 3), (-5, 7, -1), (9, -3, 22)])
def test_tokens_never_miss_body_and_are_generous_by_less_than_a_cell(
    start: tuple[int, int, int],
) -> None:
    from scipy import ndimage

    mask = _blob((40, 52, 61))
    body_grid = body_grid_of_mask(mask, mask.shape, CELL)
    size = (32, 40, 48)
    tokens = tokens_of_crop(body_grid, CELL, start, size, TOKEN)
    least = _tokens_by_voxels(mask, start, size)
    most = _tokens_by_voxels(ndimage.binary_dilation(mask, np.ones((7, 7, 7))), start, size)
    assert tokens[least].all()
    assert not tokens[~most].any()
    assert tokens.any() and not tokens.all()


@pytest.mark.parametrize("resampled", [(20, 26, 31), (80, 100, 122), (13, 52, 90)])
def test_cells_of_another_grid_cover_the_mask(resampled: tuple[int, int, int]) -> None:
    mask = _blob((40, 52, 61))
    body_grid = body_grid_of_mask(mask, resampled, CELL)
    assert body_grid.shape == tuple(-(-n // 4) for n in resampled)
    centres = np.argwhere(mask) + 0.5
    at = (centres * np.array(resampled) / np.array(mask.shape) / 4).astype(int)
    assert body_grid[tuple(at.T)].all()
    assert abs(body_grid.mean() - mask.mean()) < 0.25


def test_crop_inside_outside_and_across() -> None:
    volume = np.arange(2 * 6 * 7 * 8, dtype=np.int16).reshape(2, 6, 7, 8)
    assert np.array_equal(crop_padded(volume, (1, 2, 3), (4, 4, 4), -9), volume[:, 1:5, 2:6, 3:7])
    across = crop_padded(volume, (-2, 5, 6), (4, 4, 4), -9)
    assert np.array_equal(across[:, 2:, :2, :2], volume[:, :2, 5:, 6:])
    assert (across[:, :2] == -9).all() and (across[:, :, 2:] == -9).all()
    assert (crop_padded(volume, (20, 0, 0), (4, 4, 4), -9) == -9).all()
    assert across.dtype == np.int16


def test_crop_is_a_copy() -> None:
    volume = np.zeros((1, 4, 4, 4), dtype=np.int16)
    crop_padded(volume, (0, 0, 0), (4, 4, 4), 0)[:] = 1
    assert not volume.any()


def test_centre_start() -> None:
    assert centre_start((10, 4, 7), (4, 10, 7)) == (3, -3, 0)


def test_odd_token_patches_use_whole_tokens_as_cells() -> None:
    assert cell_size_of((8, 7, 16)) == (4, 7, 8)
