"""Interpolation on regular grids: upsampling, sampling, and inverting a mapping."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.sources import Array

Box = tuple[slice, slice, slice]
EVERYTHING: Box = (slice(None), slice(None), slice(None))


def upsample(fields: Array, size: tuple[int, int, int]) -> Array:
    """Trilinear interpolation of (C, n0, n1, n2) to (C, *size); corners coincide."""
    tensor = torch.from_numpy(np.ascontiguousarray(fields))[None]
    larger = torch.nn.functional.interpolate(
        tensor, size=size, mode="trilinear", align_corners=True
    )
    result: Array = larger[0].numpy()
    return result


def sample(volumes: Array, grid: Array) -> Array:
    """Sample volumes trilinearly at the points of a grid; beyond the border its value continues.

    Args:
        volumes: (C, Z, Y, X).
        grid: (3, n0, n1, n2) positions in the order x, y, z; -1 and 1 are the centres of the first
            and the last voxel.

    Returns:
        (C, n0, n1, n2).
    """
    sampled: Array = torch.nn.functional.grid_sample(
        torch.from_numpy(volumes)[None],
        torch.from_numpy(grid).permute(1, 2, 3, 0)[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )[0].numpy()
    return sampled


def index_of(mapping: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fractional index at which a (3, n0, n1, n2) mapping takes ``value`` (3,)."""
    distance = ((mapping - value.reshape(3, 1, 1, 1)) ** 2).sum(0)
    best = np.array(np.unravel_index(int(np.argmin(distance)), distance.shape), float)
    for _ in range(4):  # Newton steps on the interpolated mapping
        here, slope = _interpolate(mapping, best)
        best = best + np.linalg.solve(slope, value - here)
        best = np.clip(best, 0, np.array(distance.shape) - 1.001)
    return best


def only(axis: int, part: slice) -> tuple[slice, ...]:
    """Index that takes ``part`` of one axis and all of the others."""
    return tuple(part if a == axis else slice(None) for a in range(3))


def _interpolate(
    field_: NDArray[np.float64], position: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Value (3,) and Jacobian (3, 3) of a trilinear field at a fractional index."""
    corner = np.floor(position).astype(int)
    t = position - corner
    cell = field_[
        :, corner[0] : corner[0] + 2, corner[1] : corner[1] + 2, corner[2] : corner[2] + 2
    ]
    weights = [np.array([1 - f, f]) for f in t]
    slopes = np.array([-1.0, 1.0])
    value = np.einsum("czyx,z,y,x->c", cell, *weights)
    columns = [
        np.einsum("czyx,z,y,x->c", cell, *[slopes if b == a else weights[b] for b in range(3)])
        for a in range(3)
    ]
    return value, np.stack(columns, axis=1)
