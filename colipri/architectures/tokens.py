"""Which tokens of a volume the encoder sees: body without air, and in training a random share."""

from __future__ import annotations

import torch
from torch import Tensor


def select_tokens(
    body: Tensor,
    keep_ratio: float = 1.0,
    max_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Choose body tokens, and of these a uniformly random share.

    Attention costs N^2: of a chest CT in a cubic field of view less than half of the tokens are
    body. Dropping a random share as well is FLIP's speed-up (arXiv 2212.00794).

    Args:
        body: (B, N) bool, True where a token patch holds more than air.
        keep_ratio: share of each sample's body tokens to keep, in (0, 1].
        max_tokens: upper limit per sample.
        generator: decides the random share; on the device of ``body``.

    Returns:
        keep: (B, K) int64 token indices in ascending order, K the largest count of the batch;
            samples with fewer tokens are filled up with their unused ones.
        key_mask: (B, K) bool, False at the fillers; None where there are none.
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
    # ascending positions, fillers last: memory access stays local and the order is reproducible
    sort_key = torch.where(wanted, ranking, ranking + total)
    rank = sort_key.argsort(dim=1)
    keep = ranking.gather(1, rank)
    key_mask = wanted.gather(1, rank)
    return keep, (None if bool(key_mask.all()) else key_mask)
