"""Tokens of a volume: cutting images into token patches and back, and which ones the encoder sees.

Tokens and the voxels within a token both run with axis 0 slowest, as ``PrimusEncoder.tokenize`` and
``rope.grid_positions`` count them. Masks, targets and predictions all go through these functions.
The encoder sees body without air, and in training a random subset of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def select_tokens(
    body: Tensor,
    keep_ratio: float = 1.0,
    max_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Choose body tokens, or a uniformly random subset of them.

    Attention costs N^2, and less than half of the tokens of a chest CT in a cubic field of view are
    body. Dropping a random subset as well is FLIP's speed-up (arXiv 2212.00794).

    Args:
        body: (B, N) bool, True where a token patch holds more than air.
        keep_ratio: fraction of each sample's body tokens to keep, in (0, 1].
        max_tokens: upper limit per sample.
        generator: draws the random subset; on the device of ``body``.

    Returns:
        ids_keep: (B, K) int64 token indices in ascending order, K the largest count in the batch;
            samples with fewer tokens are padded with their unused ones.
        attention_mask: (B, K) bool, False at the padding; None if there is none.
    """
    batch, total = body.shape
    counts = (body.sum(dim=1) * keep_ratio).ceil().long().clamp(min=1)
    if max_tokens is not None:
        counts = counts.clamp(max=max_tokens)
    length = int(counts.max())
    if keep_ratio < 1.0 or max_tokens is not None:
        order = torch.rand(batch, total, device=body.device, generator=generator)
    else:
        order = torch.arange(total, device=body.device).expand(batch, total) / total
    ranking = torch.where(body, order, order + 1.0).argsort(dim=1)[:, :length]
    wanted = torch.arange(length, device=body.device) < counts[:, None]
    # ascending positions, padding last: memory access stays local and the order is reproducible
    sort_key = torch.where(wanted, ranking, ranking + total)
    rank = sort_key.argsort(dim=1)
    ids_keep = ranking.gather(1, rank)
    attention_mask = wanted.gather(1, rank)
    return ids_keep, (None if bool(attention_mask.all()) else attention_mask)


def patchify(image: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, A0, A1, A2) -> (B, N, C * p0 * p1 * p2)."""
    return _by_token(image, patch).flatten(4).flatten(1, 3)


def patch_rows(image: Tensor, patch: Sequence[int], sample: Tensor, kept: Tensor) -> Tensor:
    """Voxels of chosen token patches, (T, C * p0 * p1 * p2); the others are never touched.

    Args:
        image: (B, C, A0, A1, A2).
        patch: voxels of a token per axis.
        sample: (T,) int64: which image.
        kept: (T,) int64: which token of it.
    """
    blocks = _by_token(image, patch)
    _, _, middle, last = blocks.shape[:4]
    i, rest = kept // (middle * last), kept % (middle * last)
    return blocks[sample, i, rest // last, rest % last].flatten(1)


def unpatchify(patches: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Join token patches to images (B, C, A0, A1, A2); the inverse of :func:`patchify`.

    Args:
        patches: (B, N, C * p0 * p1 * p2).
        grid: tokens per axis; N is their product.
        patch: voxels of a token per axis, (p0, p1, p2).
    """
    batch = len(patches)
    channels = patches.shape[-1] // (patch[0] * patch[1] * patch[2])
    blocks = patches.reshape(batch, *grid, channels, *patch).permute(0, 4, 1, 5, 2, 6, 3, 7)
    sizes = [count * step for count, step in zip(grid, patch, strict=True)]
    return blocks.reshape(batch, channels, *sizes)


def fill_patches(image: Tensor, hidden: Tensor, patch: Sequence[int], value: float) -> Tensor:
    """Copy images and give whole token patches one value.

    Args:
        image: (B, C, A0, A1, A2).
        hidden: (B, N) bool, True at the patches to fill.
        patch: voxels of a token per axis.
        value: intensity to fill with.
    """
    blocks = _blocks(image, patch)
    grid = (blocks.shape[2], blocks.shape[4], blocks.shape[6])
    mask = hidden.reshape(len(image), 1, grid[0], 1, grid[1], 1, grid[2], 1)
    return blocks.masked_fill(mask, value).reshape(image.shape)


def _by_token(image: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, g0, g1, g2, C, p0, p1, p2), a view."""
    return _blocks(image, patch).permute(0, 2, 4, 6, 1, 3, 5, 7)


def _blocks(image: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, g0, p0, g1, p1, g2, p2)."""
    sizes = [
        part
        for size, step in zip(image.shape[2:], patch, strict=True)
        for part in (size // step, step)
    ]
    return image.reshape(*image.shape[:2], *sizes)
