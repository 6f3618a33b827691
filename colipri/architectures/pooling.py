"""Pooling tokens into one embedding, and the dense form of each pool.

Attention pooling is the released COLIPRI's; mean and maximum is for small machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked_mean(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B, K, E) -> (B, E), without padding."""
    if attention_mask is None:
        return tokens.mean(dim=1)
    weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def float32_linear(layer: nn.Linear, values: Tensor) -> Tensor:
    """Apply the layer in float32, under bf16 autocast too.

    What all cases have in common is many times what tells them apart, and the centring of
    colipri.training.initialization subtracts it here: bf16 would round the rest away.
    """
    with torch.autocast(values.device.type, enabled=False):
        return layer(values.to(layer.weight.dtype))


class AttentionPool(nn.Module):
    """Attention pooling whose query is the mean token (released COLIPRI), or learned queries.

    Parameters are those of nn.MultiheadAttention (``in_proj_weight``, ``out_proj``), as released.

    Args:
        dim: E.
        num_heads: heads.
        num_queries: 0 for the mean token as query; otherwise so many learned queries, averaged.
        add_max: add the maximum over all tokens of ReLU(W t + b) to what attention gives, before
            the output projection. A small finding is one token of hundreds: in a mean it hardly
            counts until attention has learned to look there, in a maximum from the first step.
    """

    forward_methods: ClassVar[tuple[str, ...]] = ("dense",)

    def __init__(
        self, dim: int, num_heads: int, num_queries: int = 0, add_max: bool = False
    ) -> None:
        super().__init__()
        self.detector = nn.Linear(dim, dim) if add_max else None
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.queries = (
            nn.Parameter(torch.randn(1, num_queries, dim) * 0.02) if num_queries else None
        )

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded."""
        yield self

    @property
    def last_layer(self) -> nn.Linear:
        """The layer that gives the embedding."""
        return self.attention.out_proj

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, K, E) -> (B, E).

        Args:
            tokens: (B, K, E).
            attention_mask: (B, K) bool, False at padding, which counts neither in the query nor
                as a key.
        """
        attention = self.attention
        if self.queries is not None:
            query = self.queries.expand(len(tokens), -1, -1)
        else:
            query = masked_mean(tokens, attention_mask).unsqueeze(1)
        batch, dim = len(tokens), tokens.shape[-1]
        heads = attention.num_heads
        weights = attention.in_proj_weight.chunk(3)
        biases = attention.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).view(batch, -1, heads, dim // heads).transpose(1, 2)
            for x, w, b in zip((query, tokens, tokens), weights, biases, strict=True)
        )
        mask = None if attention_mask is None else attention_mask[:, None, None, :]
        pooled = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        pooled = pooled.transpose(1, 2).reshape(batch, -1, dim)
        if self.detector is not None:
            found = F.relu(self.detector(tokens))
            if attention_mask is not None:
                found = found.masked_fill(~attention_mask.unsqueeze(-1), 0.0)
            pooled = pooled + found.amax(dim=1, keepdim=True)
        return float32_linear(attention.out_proj, pooled).mean(dim=1)

    def dense(self, tokens: Tensor) -> Tensor:
        """(B, K, E) -> (B, K, E): every token as if attention looked at it alone.

        Only the value and output projections remain of attention over one key (the MaskCLIP idea,
        arXiv 2112.01071, which the released model uses for its heat maps).
        """
        weight = self.attention.in_proj_weight.chunk(3)[2]
        bias = self.attention.in_proj_bias.chunk(3)[2]
        values = F.linear(tokens, weight, bias)
        if self.detector is not None:
            values = values + F.relu(self.detector(tokens))
        return float32_linear(self.attention.out_proj, values)


class MeanMaxPool(nn.Module):
    """Mean and maximum over the tokens, side by side, through one linear layer.

    The mean says how much of a scan shows something, the maximum whether anything does, both from
    the first step: attention would have to learn first where to look.

    Args:
        dim: E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(2 * dim, dim)

    @property
    def last_layer(self) -> nn.Linear:
        """The layer that gives the embedding."""
        return self.out_proj

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, K, E) -> (B, E).

        Args:
            tokens: (B, K, E).
            attention_mask: (B, K) bool, False at padding, which does not count.
        """
        seen = tokens
        if attention_mask is not None:
            lowest = torch.finfo(tokens.dtype).min
            seen = tokens.masked_fill(~attention_mask.unsqueeze(-1), lowest)
        both = torch.cat([masked_mean(tokens, attention_mask), seen.amax(dim=1)], dim=-1)
        return float32_linear(self.out_proj, both)

    def dense(self, tokens: Tensor) -> Tensor:
        """(B, K, E) -> (B, K, E): every token as if it were the whole scan."""
        return float32_linear(self.out_proj, torch.cat([tokens, tokens], dim=-1))
