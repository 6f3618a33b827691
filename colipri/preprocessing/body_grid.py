"""The body on a coarse grid, and which token patches of a crop contain body.

A crop may start at any voxel, so its tokens do not align with anything that could be stored per
token. The body is therefore stored per *cell* of half a token patch (4 voxels). A token is body if
any cell that it overlaps is body. This is exact for crops that start on a cell; otherwise it
includes at most 3 more voxels at the border, so that no body is ever dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Volume(Protocol):
    """An array (C, A0, A1, A2) that can be read in parts: from numpy, or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and voxels."""

    @property
    def dtype(self) -> Any:
        """numpy's type."""

    def __getitem__(self, index: Any, /) -> Any:
        """Part of the array."""


def cell_size_of(token_patch: Sequence[int]) -> tuple[int, int, int]:
    """Voxels per cell along each axis: half a token patch, or all of it if its size is odd."""
    a, b, c = (size // 2 if size % 2 == 0 else size for size in token_patch)
    return (a, b, c)


def body_grid_of_mask(
    mask: np.ndarray, resampled_shape: Sequence[int], cell_size: Sequence[int]
) -> np.ndarray:
    """The cells that contain body, after resampling.

    Args:
        mask: bool (A0, A1, A2), before resampling.
        resampled_shape: voxels of the same box after resampling.
        cell_size: voxels (after resampling) per cell.

    Returns:
        uint8 (ceil(S0 / cell), ...): 1 = body.
    """
    body_grid = mask
    for axis in range(3):
        count = -(-resampled_shape[axis] // cell_size[axis])
        scale = mask.shape[axis] / resampled_shape[axis]
        ends = np.arange(count + 1) * cell_size[axis] * scale
        first = np.minimum(np.floor(ends[:-1]).astype(np.intp), mask.shape[axis] - 1)
        last = np.clip(np.ceil(ends[1:]).astype(np.intp) - 1, first, mask.shape[axis] - 1)
        # reduceat covers first to next first; a voxel across a boundary belongs to both cells
        body_grid = np.logical_or.reduceat(body_grid, first, axis=axis) | np.take(
            body_grid, last, axis=axis
        )
    return body_grid.astype(np.uint8)


def tokens_of_crop(
    body_grid: np.ndarray,
    cell_size: Sequence[int],
    start: Sequence[int],
    size: Sequence[int],
    token_patch: Sequence[int],
) -> np.ndarray:
    """Which token patches of a crop contain body.

    Args:
        body_grid: (K0, K1, K2), as :func:`body_grid_of_mask` makes them.
        cell_size: voxels per cell.
        start: first voxel of the crop along each axis; may be negative (padding).
        size: voxels of the crop per axis, a multiple of ``token_patch``.
        token_patch: voxels per token.

    Returns:
        bool (size / token_patch): False if the token contains only outside air or padding.
    """
    tokens = body_grid.astype(bool)
    for axis in range(3):
        first_voxel = start[axis] + np.arange(size[axis] // token_patch[axis]) * token_patch[axis]
        first = first_voxel // cell_size[axis]  # floors, also below zero
        last = (first_voxel + token_patch[axis] - 1) // cell_size[axis]
        longest = int((last - first).max())
        reduced = None
        for step in range(longest + 1):
            index = np.minimum(first + step, last)
            inside = (index >= 0) & (index < tokens.shape[axis])
            taken = np.take(tokens, np.clip(index, 0, tokens.shape[axis] - 1), axis=axis)
            shape = [1, 1, 1]
            shape[axis] = -1
            taken = taken & inside.reshape(shape)
            reduced = taken if reduced is None else reduced | taken
        assert reduced is not None
        tokens = reduced
    return tokens


def crop_padded(
    source: Volume, start: Sequence[int], size: Sequence[int], pad_value: float
) -> np.ndarray:
    """Crop ``size`` voxels from ``start`` on and pad what lies outside of ``source``.

    acvl_utils.cropping_and_padding.bounding_boxes.crop_and_pad_nd does the same for crops that
    overlap the array, but imports torch, and returns a wrong shape for crops outside of it.

    Args:
        source: (C, A0, A1, A2), in memory or on disk (then only the required chunks are read).
        start: first voxel along each axis; may be negative or beyond the end.
        size: voxels along each axis.
        pad_value: value outside of the array, in its units.

    Returns:
        (C, *size), with the source's type, always a copy.
    """
    shape = source.shape[1:]
    low = [max(0, begin) for begin in start]
    high = [min(end, begin + length) for end, begin, length in zip(shape, start, size, strict=True)]
    channels = source.shape[0]
    if any(stop <= begin for begin, stop in zip(low, high, strict=True)):
        return np.full((channels, *size), pad_value, dtype=source.dtype)
    inner = np.asarray(source[(slice(None), *(map(slice, low, high)))])
    if inner.shape[1:] == tuple(size):
        return np.array(inner)
    result = np.full((channels, *size), pad_value, dtype=source.dtype)
    place = tuple(
        slice(begin - first, stop - first)
        for begin, stop, first in zip(low, high, start, strict=True)
    )
    result[(slice(None), *place)] = inner
    return result


def centre_start(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int, int]:
    """First voxel of a centred crop of ``size`` in a volume of ``shape`` (negative: padding)."""
    a, b, c = ((whole - part) // 2 for whole, part in zip(shape, size, strict=True))
    return (a, b, c)
