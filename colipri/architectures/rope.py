"""Rotary position embedding in three dimensions, by token position and not by grid.

Su et al., RoFormer (arXiv 2104.09864), in the axial form of EVA-02 (arXiv 2303.11331): a third
of each head per axis, interleaved pairs, frequencies 10000^(-i/n), positions counted in tokens. As
each kept token carries its own (i, j, k), dropping tokens, masking and other grids need no special
case: a distance of one token means the same everywhere.

A pair is rotated as one complex number: one kernel instead of the five of stack-and-add, and seven
times faster on a CPU.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

TEMPERATURE = 10000.0
_CACHED_GRIDS = 16  # a training run has one or two grids, sliding windows one; tables are small

Grid = tuple[int, int, int]


def check_head_dim(embed_dim: int, num_heads: int) -> int:
    """Width of a head; it must split into three axes of sine-cosine pairs.

    Raises:
        ValueError: embed_dim is not a multiple of num_heads, or the width of a head not one of 6.
    """
    head_dim, rest = divmod(embed_dim, num_heads)
    if rest or head_dim % 6:
        raise ValueError(
            f"embed_dim {embed_dim} with {num_heads} heads: heads must be a multiple of 6 wide (3 "
            f"axes of sine-cosine pairs), not {embed_dim / num_heads:g}"
        )
    return head_dim


@lru_cache(maxsize=_CACHED_GRIDS)
def grid_positions(grid: Grid, device: torch.device | None = None) -> Tensor:
    """(N, 3) int64: the position of every token of a grid, axis 0 slowest. Do not modify it."""
    # tables outlive this call: one born in inference mode could never enter autograd again
    with torch.inference_mode(False):
        axes = [torch.arange(size, device=device) for size in grid]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


@lru_cache(maxsize=_CACHED_GRIDS)
def grid_rotation(grid: Grid, head_dim: int, device: torch.device | None = None) -> Tensor:
    """:func:`rotation` of every token of a grid, (N, head_dim / 2) complex. Do not modify it.

    Args:
        grid: tokens per axis; N is their product.
        head_dim: width of an attention head.
        device: of the result.
    """
    with torch.inference_mode(False):
        return rotation(grid_positions(grid, device), head_dim)


def rotation(positions: Tensor, head_dim: int) -> Tensor:
    """Unit complex numbers that rotate the pairs of a head.

    Args:
        positions: (..., 3) integers, in tokens.
        head_dim: multiple of 6.

    Returns:
        (..., head_dim / 2) complex64, first the pairs of axis 0, then of axes 1 and 2.
    """
    bands = head_dim // 6
    exponents = torch.arange(bands, device=positions.device, dtype=torch.float32) / bands
    frequencies = 1.0 / TEMPERATURE**exponents
    angles = (positions.float().unsqueeze(-1) * frequencies).flatten(-2)
    return torch.complex(angles.cos(), angles.sin())


def rotate(features: Tensor, rope: Tensor) -> Tensor:
    """Rotate queries or keys by position, in float32; the result has their own type.

    Args:
        features: (B, K, heads, head_dim).
        rope: (K, 1, head_dim / 2) or (B, K, 1, head_dim / 2), from :func:`rotation`.
    """
    pairs = torch.view_as_complex(features.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope).flatten(-2).to(features.dtype)
