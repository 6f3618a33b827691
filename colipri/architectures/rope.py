"""Rotary position embedding in three dimensions, by token position and not by grid.

Su et al., RoFormer (arXiv 2104.09864), in the axial form of EVA-02 (arXiv 2303.11331): a third of
each head per axis, interleaved pairs, frequencies 10000^(-i/n), positions counted in tokens. Because
each kept token carries its own (i, j, k), dropping tokens, masking and other grids need no special
case: a distance of one token means the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def check_head_dim(embed_dim: int, num_heads: int) -> int:
    """Width of a head; it must split into three axes of sine-cosine pairs.

    Raises:
        ValueError: embed_dim is no multiple of num_heads, or a head no multiple of 6.
    """
    head_dim, rest = divmod(embed_dim, num_heads)
    if rest or head_dim % 6:
        raise ValueError(
            f"embed_dim {embed_dim} with {num_heads} heads: heads must be a multiple of 6 wide (3 axes "
            f"of sine-cosine pairs), not {embed_dim / num_heads:g}"
        )
    return head_dim


def grid_positions(grid: tuple[int, int, int], device: torch.device | None = None) -> Tensor:
    """(N, 3) int64: the position of every token of a grid, axis 0 slowest."""
    axes = [torch.arange(size, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def rotary_embedding(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Sine and cosine for tokens at ``positions``.

    Args:
        positions: (..., 3) integers, in tokens.
        head_dim: multiple of 6.

    Returns:
        Two tensors (..., head_dim), float32.
    """
    bands = head_dim // 6
    exponents = torch.arange(bands, device=positions.device, dtype=torch.float32) / bands
    frequencies = TEMPERATURE**-exponents
    angles = (positions.float().unsqueeze(-1) * frequencies).flatten(-2)
    angles = angles.repeat_interleave(2, dim=-1)
    return angles.sin(), angles.cos()


def rotate(features: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Apply the embedding to queries or keys, in float32, and return their own type.

    Args:
        features: (B, heads, K, head_dim).
        sine, cosine: broadcastable to ``features``.
    """
    wide = features.float()
    pairs = torch.stack((-wide[..., 1::2], wide[..., ::2]), dim=-1).flatten(-2)
    return (wide * cosine + pairs * sine).to(features.dtype)
