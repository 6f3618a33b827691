"""Which tokens are hidden in masked image modelling: body tokens, at random or in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from colipri.architectures.packing import to_device
from colipri.architectures.rope import Grid

MASKS = ("random", "block")


@dataclass(frozen=True)
class MaskedTokens:
    """Indices of tokens, ascending; padding (its mask is False) at the end. All on the CPU.

    Attributes:
        visible: (B, K) int64: what the encoder sees.
        visible_mask: (B, K) bool, or None if no sample has padding.
        masked: (B, M) int64: what is predicted. Air is in neither.
        masked_mask: (B, M) bool.
        hidden: (B, N) bool, True at the masked tokens.
    """

    visible: Tensor
    visible_mask: Tensor | None
    masked: Tensor
    masked_mask: Tensor
    hidden: Tensor


def draw_masks(
    body: Tensor, grid: Grid, ratio: float, kind: str, block: int, seeds: Sequence[int]
) -> MaskedTokens:
    """Hide a share of each sample's body tokens.

    ``random``: every token separately. ``block``: cubes of ``block`` tokens on a lattice with
    random origin, one after the other, until the share is reached; neighbours of a hidden token are
    then mostly hidden too, and cannot simply be continued.

    Args:
        body: (B, N) bool in token order, on the CPU; every sample has at least one.
        grid: tokens per axis.
        ratio: share to hide, in (0, 1); at least one token stays visible.
        kind: "random" or "block".
        block: edge of a cube in tokens.
        seeds: B seeds, so that a sample's mask does not depend on its micro batch.
    """
    scores = torch.stack([_scores(grid, kind, block, seed) for seed in seeds])
    counts = body.sum(dim=1)
    keep = (counts * (1.0 - ratio)).round().long().clamp(min=1)
    keep = torch.minimum(keep, counts)
    rank = torch.where(body, scores, 2.0).argsort(dim=1).argsort(dim=1)
    is_visible = body & (rank < keep[:, None])
    hidden = body & ~is_visible
    visible, visible_mask = _listed(is_visible)
    masked, masked_mask = _listed(hidden)
    return MaskedTokens(
        visible, None if bool(visible_mask.all()) else visible_mask, masked, masked_mask, hidden
    )


def mean_of_hidden(by_token: Tensor, masks: MaskedTokens) -> Tensor:
    """(B, M, ...) values of the masked tokens -> (B, ...), their mean; 0 where none is hidden."""
    weight = to_device(masks.masked_mask, by_token.device).to(by_token.dtype)
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    return (by_token * weight.reshape(*weight.shape, *(1,) * (by_token.ndim - 2))).sum(dim=1)


def _scores(grid: Grid, kind: str, block: int, seed: int) -> Tensor:
    """(N,) in [0, 1): the tokens with the lowest scores stay visible. Drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(grid, generator=generator)
    if kind == "random":
        return noise.flatten()
    origin = torch.randint(block, (3,), generator=generator).tolist()
    cubes = torch.rand([size // block + 2 for size in grid], generator=generator)
    index = [
        (torch.arange(size) + shift) // block for size, shift in zip(grid, origin, strict=True)
    ]
    chosen = cubes[index[0][:, None, None], index[1][None, :, None], index[2][None, None, :]]
    return (chosen * (1 - 1e-4) + noise * 1e-4).flatten()  # noise only orders the last, cut cube


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) bool -> indices (B, L) ascending with padding at the end, and its mask."""
    length = max(1, int(chosen.sum(dim=1).max()))
    order = torch.argsort((~chosen).to(torch.uint8), dim=1, stable=True)[:, :length]
    return order, chosen.gather(1, order)
