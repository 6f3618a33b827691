"""Texts look at an image: each text pools the image's tokens by cross-attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START_SCALE, MAXIMUM_SCALE = 1 / 0.07, 100.0  # as of the shared space (CLIP)


class SentenceAttention(nn.Module):
    """One head of attention whose queries are texts, and the cosine of what each text pools to it.

    A single head: its weights are the heat map of a text, with nothing to average.

    Args:
        image_dim: D, width of an image token.
        shared_dim: E, width of a text's embedding.
    """

    forward_methods: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(self, image_dim: int, shared_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(shared_dim, image_dim)
        self.key = nn.Linear(image_dim, image_dim)
        self.value = nn.Linear(image_dim, shared_dim)
        self.scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded."""
        yield self

    def forward(self, tokens: Tensor, texts: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Compare every image with every text: (b, S) cosines over the temperature, float32.

        Args:
            tokens: (b, K, D), image tokens.
            texts: (S, E), embeddings of the texts, L2-normalized.
            attention_mask: (b, K) bool, False at padding; None if there is none.
        """
        query = self.query(texts).expand(len(tokens), 1, -1, -1)
        key, value = self.key(tokens)[:, None], self.value(tokens)[:, None]
        mask = None if attention_mask is None else attention_mask[:, None, None]
        pooled = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[:, 0]
        with torch.autocast(tokens.device.type, enabled=False):
            exact = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
            cosines = (F.normalize(exact, dim=-1) * texts).sum(dim=-1)
            return cosines * self.scale.exp().clamp(max=MAXIMUM_SCALE)

    def weights(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Return the attention of each text, (S, K), times K: 1 where it looks as much as anywhere.

        Args:
            tokens: (K, D), of one image, without padding.
            texts: (S, E), L2-normalized.
        """
        query, key = self.query(texts).float(), self.key(tokens).float()
        logits = query @ key.T / math.sqrt(key.shape[1])
        return logits.softmax(dim=1) * len(tokens)

    def flops(self, num_tokens: float, num_texts: float) -> float:
        """Count forward FLOPs for one image.

        Args:
            num_tokens: K.
            num_texts: S.
        """
        shared, dim = self.query.in_features, self.query.out_features
        projections = num_texts * shared * dim + num_tokens * dim * (dim + shared)
        return 2.0 * (projections + num_texts * num_tokens * (dim + shared))
