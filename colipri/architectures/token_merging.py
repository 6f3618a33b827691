"""Token merging: alike tokens become one on their way through the blocks, in inference only.

Bolya et al., Token Merging: Your ViT But Faster (arXiv 2210.09461, ICLR 2023): between attention
and MLP of every block the tokens are dealt alternately into two sets, each of the first finds the
token of the second whose key is most alike, and the most alike pairs become their mean. A merged
token counts in attention as often as it has sources ("proportional attention"), so merging equal
tokens changes nothing.

What is different here: keys are compared after rotation, that is with their positions, a merged
token lies at the mean of the positions of its sources, and at the end every source gets the
features of the token that it became part of, so that the caller sees all of its tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colipri.architectures.rope import rotation
from colipri.architectures.transformer import Block, Transformer

LARGEST_SHARE = 0.9
_ROWS_AT_ONCE = 2048  # of the comparison, so that it takes little memory
_WIDTH_STEP = 8  # flash kernels take heads whose width is a multiple of this


@dataclass
class _Tokens:
    """The n tokens that are left of K.

    Attributes:
        features: (n, D).
        positions: (n, 3) float32; of merged tokens the mean.
        sizes: (n,) float32: sources of each.
        part_of: (K,) int64: the token that each source is part of now.
    """

    features: Tensor
    positions: Tensor
    sizes: Tensor
    part_of: Tensor


def check_share(share: float) -> float:
    """Return a share of tokens to merge away.

    Raises:
        ValueError: it is not between 0 and LARGEST_SHARE.
    """
    if not 0 <= share <= LARGEST_SHARE:
        raise ValueError(
            f"the share of tokens to merge must be from 0 to {LARGEST_SHARE}, not {share}"
        )
    return share


def merged_counts(num_tokens: int, depth: int, share: float) -> list[int]:
    """Return how many tokens each block merges away: as many in each, ``share`` of all at the end.

    Args:
        num_tokens: of a sample.
        depth: blocks.
        share: in [0, LARGEST_SHARE].
    """
    until = [round(share * num_tokens * (block + 1) / depth) for block in range(depth)]
    return [last - before for before, last in zip([0, *until], until, strict=False)]


def encode_merging(
    transformer: Transformer, x: Tensor, positions: Tensor, share: float, registers: int = 0
) -> Tensor:
    """Run the blocks on one sample and merge tokens on the way.

    Args:
        transformer: its blocks; without stochastic depth and recomputation.
        x: (K, D), registers first.
        positions: (K, 3) in tokens; zeros for registers, which nothing rotates.
        share: of the tokens to merge away by the end.
        registers: tokens that are never merged.

    Returns:
        (K, D) before the final norm; sources of one token have the same features.
    """
    count = len(x)
    tokens = _Tokens(
        x,
        positions.float(),
        x.new_ones(count, dtype=torch.float32),
        torch.arange(count).to(x.device),
    )
    merged = merged_counts(count - registers, len(transformer.blocks), share)
    for block, away in zip(transformer.blocks, merged, strict=True):
        assert isinstance(block, Block)
        keys = _attention(block, tokens)
        tokens = _merge(tokens, keys, away, registers)
        tokens.features = tokens.features + block.mlp(block.norm2(tokens.features), block.gamma_2)
    return tokens.features[tokens.part_of]


def _attention(block: Block, tokens: _Tokens) -> Tensor:
    """Apply the attention half of a block; returns the keys, averaged over heads, (n, width)."""
    rope = rotation(tokens.positions, block.attn.head_dim)[:, None, None]
    query, key, value = block.attn.project(block.norm1(tokens.features), rope)
    mixed = _proportional_attention(query, key, value, tokens.sizes)
    tokens.features = tokens.features + block.attn.output(mixed, block.gamma_1)
    return key.float().mean(dim=1)


def _proportional_attention(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
    """Attention in which each key counts as often as it has sources, (n, heads, width).

    The logarithm of the size is one more channel of the keys, because a bias on the scores would
    need a mask, which rules out flash kernels.
    """
    width = query.shape[-1]
    more = _WIDTH_STEP - width % _WIDTH_STEP
    query, key, value = (F.pad(part, (0, more)) for part in (query, key, value))
    query[..., width] = math.sqrt(width)
    key[..., width] = sizes.log().to(key.dtype)[:, None]
    heads = [part.transpose(0, 1)[None].contiguous() for part in (query, key, value)]
    mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], scale=1 / math.sqrt(width))
    return mixed[0, ..., :width].transpose(0, 1)


def _merge(tokens: _Tokens, keys: Tensor, away: int, registers: int) -> _Tokens:
    """Merge the ``away`` most alike pairs; the others stay in their order."""
    count, device = len(keys), keys.device
    first = torch.arange(registers, count, 2, device=device)
    second = torch.arange(registers + 1, count, 2, device=device)
    away = min(away, len(first) if len(second) else 0)
    if not away:
        return tokens
    unit = F.normalize(keys, dim=-1)
    found = [(rows @ unit[second].T).max(dim=1) for rows in unit[first].split(_ROWS_AT_ONCE)]
    best, partner = (torch.cat(part) for part in zip(*found, strict=True))
    order = best.argsort(descending=True, stable=True)
    gone, into = first[order[:away]], second[partner[order[:away]]]
    kept_before = torch.arange(registers, device=device)
    left = torch.cat((kept_before, first[order[away:]], second)).sort().values
    place = torch.empty(count, dtype=torch.int64, device=device)  # of each token among those left
    place[left] = torch.arange(len(left), device=device)
    place[gone] = place[into]

    weight = tokens.sizes[:, None]

    def mean(values: Tensor) -> Tensor:
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        total = wide.new_zeros(len(left), wide.shape[1]).index_add_(0, place, wide * weight)
        return (total / sizes[:, None]).to(values.dtype)

    sizes = tokens.sizes.new_zeros(len(left)).index_add_(0, place, tokens.sizes)
    return _Tokens(mean(tokens.features), mean(tokens.positions), sizes, place[tokens.part_of])
