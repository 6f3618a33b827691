"""Affine transforms of batches in millimetres, and what they do to the body mask of the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Sampling positions of a chunk take 12 bytes a voxel: at most 400 MB for this many.
_VOXELS_PER_CHUNK = 2**25


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotations about the three axes, one after the other.

    Args:
        angles: (B, 3) in radians, about axis 0, 1 and 2.

    Returns:
        (B, 3, 3), acting on positions in array order.
    """
    result = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
    for axis in range(3):
        first, second = [other for other in range(3) if other != axis]
        cosine, sine = angles[:, axis].cos(), angles[:, axis].sin()
        step = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
        step[:, first, first], step[:, first, second] = cosine, -sine
        step[:, second, first], step[:, second, second] = sine, cosine
        result = step @ result
    return result


def warp(
    image: Tensor,
    matrices: Tensor,
    shifts: Tensor,
    spacing: Sequence[float],
    padding: float,
    mode: str = "bilinear",
) -> Tensor:
    """Resample so that the output at x shows the input at ``matrix`` x + ``shift``.

    Args:
        image: (B, C, X, Y, Z).
        matrices: (B, 3, 3), acting on mm from the centre, in array order.
        shifts: (B, 3), fraction of the patch per axis.
        spacing: mm per voxel; rotations are rigid in mm, whatever the grid.
        padding: value outside.
        mode: "bilinear" (in space trilinear), or "nearest" for labels.
    """
    size = image.shape[2:]
    half = torch.tensor(
        [n * s / 2 for n, s in zip(size, spacing, strict=True)], device=image.device
    )
    relative = matrices * half[None, None, :] / half[None, :, None]
    step = max(1, _VOXELS_PER_CHUNK // size.numel())
    parts = []
    for begin in range(0, len(image), step):
        rows = slice(begin, begin + step)
        positions = _positions(relative[rows], 2 * shifts[rows], size)
        part = image[rows] - padding if padding else image[rows]
        part = F.grid_sample(part, positions, mode=mode, align_corners=False)
        parts.append(part + padding if padding else part)
    return torch.cat(parts)


def warp_tokens(
    body: Tensor, matrices: Tensor, shifts: Tensor, extent: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the token mask after :func:`warp`.

    Each token is sampled at its eight half-token centres.

    Args:
        body: (B, G0, G1, G2) bool.
        matrices: (B, 3, 3), as in :func:`warp`.
        shifts: (B, 3), fraction of the patch per axis.
        extent: mm of a token per axis.

    Returns:
        touched: (B, G0, G1, G2) bool, any sample has body near it: never misses body.
        inner: bool, all samples are inside: such a token is body without looking at the image.
    """
    mask = body[:, None].float().repeat_interleave(2, 2).repeat_interleave(2, 3)
    mask = mask.repeat_interleave(2, 4)
    sampled = warp(mask, matrices, shifts, [step / 2 for step in extent], padding=0.0)
    touched = F.max_pool3d(sampled, 2)[:, 0] > 0
    inner = -F.max_pool3d(-sampled, 2)[:, 0] > 0.999
    return touched, inner


def _positions(relative: Tensor, shifts: Tensor, size: Sequence[int]) -> Tensor:
    """grid_sample's positions (B, X, Y, Z, 3): affine_grid's result, several times faster on CPUs.

    Args:
        relative: (B, 3, 3) in array order, acting on coordinates that run from -1 to 1.
        shifts: (B, 3) in the same coordinates.
    """
    device, dtype = relative.device, relative.dtype
    axes = []
    for axis, length in enumerate(size):
        centres = (2 * torch.arange(length, device=device, dtype=dtype) + 1) / length - 1
        shape = [1, 1, 1, 1]
        shape[axis + 1] = length
        axes.append(centres.reshape(shape))
    positions = torch.empty((len(relative), *size, 3), device=device, dtype=dtype)
    for row in range(3):
        factors = relative[:, row, :, None, None, None]
        plane = factors[:, 1] * axes[1] + (
            factors[:, 2] * axes[2] + shifts[:, row, None, None, None]
        )
        # the last dimension is ordered (Z, Y, X)
        torch.add(factors[:, 0] * axes[0], plane, out=positions[..., 2 - row])
    return positions
