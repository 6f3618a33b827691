"""Rotary position embedding in three dimensions, by token position and not by grid.

Su et al., RoFormer (arXiv 2104.09864), in the axial form of EVA-02 (arXiv 2303.11331): a third
of each head per axis, interleaved pairs, frequencies 10000^(-i/n), positions counted in tokens. As
each kept token carries its own (i, j, k), dropping tokens, masking and other grids need no special
case: a distance of one token means the same everywhere.

Tables hold cosines and sines. Eager code multiplies pairs as complex numbers, which is one kernel
instead of the five of stack-and-add and seven times faster on a CPU; compiled code computes the
same products with real numbers, because compilers generate no code for complex ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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
    """:func:`rotation` of every token of a grid, (N, head_dim / 2, 2). Do not modify it.

    Args:
        grid: tokens per axis; N is their product.
        head_dim: width of an attention head.
        device: of the result.
    """
    with torch.inference_mode(False):
        return rotation(grid_positions(grid, device), head_dim)


def rotation(positions: Tensor, head_dim: int) -> Tensor:
    """Cosines and sines that rotate the pairs of a head.

    Args:
        positions: (..., 3) integers, in tokens.
        head_dim: multiple of 6.

    Returns:
        (..., head_dim / 2, 2) float32, first the pairs of axis 0, then of axes 1 and 2.
    """
    bands = head_dim // 6
    exponents = torch.arange(bands, device=positions.device, dtype=torch.float32) / bands
    frequencies = 1.0 / TEMPERATURE**exponents
    angles = (positions.float().unsqueeze(-1) * frequencies).flatten(-2)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(features: Tensor, rope: Tensor) -> Tensor:
    """Rotate queries or keys by position, in float32 or better; the result has their own type.

    Args:
        features: (..., head_dim).
        rope: (..., head_dim / 2, 2), from :func:`rotation`; it is broadcast over heads.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    pairs = wide.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        (a, b), (cosine, sine) = pairs.unbind(-1), rope.unbind(-1)
        turned = torch.stack((a * cosine - b * sine, a * sine + b * cosine), dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rope))
    return turned.flatten(-2).to(features.dtype)


class _RotateInPlace(torch.autograd.Function):
    """:func:`rotate` of queries and keys where they are, so that no second copy of them is kept."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rope: Tensor) -> Tensor:
        """Overwrite the first two of (T, 3, heads, head_dim)."""
        ctx.save_for_backward(rope)
        ctx.mark_dirty(qkv)
        if qkv.dtype in (torch.float32, torch.float64):
            pairs = torch.view_as_complex(qkv[:, :2].unflatten(-1, (-1, 2)))
            pairs.mul_(torch.view_as_complex(rope))
        else:
            qkv[:, :2] = rotate(qkv[:, :2], rope)
        return qkv

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Rotate back."""
        (rope,) = ctx.saved_tensors
        cosine, sine = rope.unbind(-1)
        back = rotate(gradient[:, :2], torch.stack((cosine, -sine), dim=-1))
        return torch.cat((back, gradient[:, 2:]), dim=1), None


def rotate_queries_and_keys(qkv: Tensor, rope: Tensor) -> Tensor:
    """Rotate queries and keys, and leave values as they are. ``qkv`` is overwritten.

    Args:
        qkv: (T, 3, heads, head_dim), the output of a linear layer.
        rope: (T, 1, 1, head_dim / 2, 2).

    Returns:
        (T, 3, heads, head_dim).
    """
    if torch.compiler.is_compiling():  # the compiler decides itself what is kept
        return torch.cat((rotate(qkv[:, :2], rope), qkv[:, 2:]), dim=1)
    rotated: Tensor = _RotateInPlace.apply(qkv, rope)
    return rotated
