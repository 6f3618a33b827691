"""The report decoder: a transformer that writes a report from the encoder's tokens.

Causal self-attention over the text, cross-attention to the image tokens, a plain MLP; the output
layer is the token embedding itself (tied). Dropped after pre-training, unless reports are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.token_loss import WantedTokens


@dataclass
class DecoderCache:
    """Keys and values of what has been written, and of the image; of one generation.

    Attributes:
        image: per block the image's (key, value), (B, heads, K, width).
        image_mask: (B, 1, 1, K) bool or None.
        text: per block the text's (key, value), (B, heads, T, width); empty at the beginning.
    """

    image: list[tuple[Tensor, Tensor]]
    image_mask: Tensor | None
    text: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens written so far."""
        return self.text[0][0].shape[2] if self.text else 0

    def select(self, rows: Tensor) -> DecoderCache:
        """Return the cache of some rows, which may repeat (beams that continue)."""
        return DecoderCache(
            [(key[rows], value[rows]) for key, value in self.image],
            None if self.image_mask is None else self.image_mask[rows],
            [(key[rows], value[rows]) for key, value in self.text],
        )


class CrossBlock(nn.Module):
    """Pre-norm self-attention over the text, cross-attention to the image, MLP."""

    forward_methods: ClassVar[tuple[str, ...]] = ("image_keys",)

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_q = nn.Linear(dim, dim)
        self.cross_kv = nn.Linear(dim, 2 * dim)
        self.cross_proj = nn.Linear(dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def image_keys(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, d) -> key and value, (B, heads, K, d / heads)."""
        return self._image_keys(image)

    def forward(
        self,
        x: Tensor,
        image: Tensor | tuple[Tensor, Tensor],
        mask: Tensor | None,
        image_mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Apply the block: (B, T, d) -> (B, T, d), and the keys and values of past and new text.

        Args:
            x: (B, T, d), embedded text tokens.
            image: (B, K, d), projected image tokens, or their keys and values
                (:meth:`image_keys`).
            mask: (B, 1, T, past + T) bool, True where a query may look; None for everywhere.
            image_mask: (B, 1, 1, K) bool, False at padding among the image tokens; None if
                there is none.
            past: keys and values of earlier text tokens; None at the beginning.
        """
        query, key, value = (self._heads(part) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        x = x + self.proj(_merge(F.scaled_dot_product_attention(query, key, value, mask)))
        query = self._heads(self.cross_q(self.norm2(x)))
        keys, values = self._image_keys(image) if isinstance(image, Tensor) else image
        looked = F.scaled_dot_product_attention(query, keys, values, image_mask)
        x = x + self.cross_proj(_merge(looked))
        x = x + self.fc2(F.gelu(self.fc1(self.norm3(x))))
        return x, (key, value)

    def _image_keys(self, image: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.cross_kv(image).chunk(2, dim=-1)
        return self._heads(key), self._heads(value)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class ReportDecoder(nn.Module):
    """Token ids and image tokens -> hidden states, and from these logits over the vocabulary.

    Args:
        vocabulary_size: of the tokenizer.
        max_tokens: longest report, special tokens included.
        image_dim: D, width of the encoder's tokens.
        dim, depth, num_heads: of the decoder.
    """

    forward_methods: ClassVar[tuple[str, ...]] = ("start", "step")

    def __init__(
        self,
        vocabulary_size: int,
        max_tokens: int,
        image_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.token_embeddings = nn.Embedding(vocabulary_size, dim)
        self.position_embeddings = nn.Embedding(max_tokens, dim)
        self.image_projection = nn.Linear(image_dim, dim)
        self.blocks = nn.ModuleList(CrossBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        image: Tensor,
        image_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        parallel: Tensor | None = None,
        wanted: WantedTokens | None = None,
    ) -> Tensor:
        """Hidden states of a whole text at once, or the errors of its tokens (training).

        The output layer is one of this module's weights, and is used inside so that the module can
        be sharded.

        Args:
            input_ids: (B, T).
            image: (B, K, D) tokens of the encoder.
            image_mask: (B, K) bool, False at padding.
            text_mask: (B, T) bool, False at padding; only needed with ``parallel``, since causal
                attention never looks at padding behind it.
            parallel: (B,) bool, True for samples whose tokens look at each other freely (CapPa).
            wanted: the tokens that should follow.

        Returns:
            (B, T, d), normalized; with ``wanted`` the cross entropy of each token, (B, T).
        """
        length = input_ids.shape[1]
        device = input_ids.device
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
        if parallel is not None:
            free = torch.ones(1, 1, 1, length, dtype=torch.bool, device=device)
            if text_mask is not None:
                free = text_mask[:, None, None, :]
            mask = torch.where(parallel[:, None, None, None], free, mask)
        projected = self.image_projection(image)
        seen = _as_attention_mask(image_mask)
        x = self._embed(input_ids, 0)
        for block in self.blocks:
            x, _ = block(x, projected, mask, seen)
        hidden: Tensor = self.norm(x)
        return hidden if wanted is None else wanted.errors(hidden, self.token_embeddings.weight)

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded: the blocks, then the rest."""
        yield from self.blocks
        yield self

    def start(self, image: Tensor, image_mask: Tensor | None = None) -> DecoderCache:
        """Return the cache of a text not yet begun: the image's keys and values, computed once."""
        projected = self.image_projection(image)
        keys = [_block(block).image_keys(projected) for block in self.blocks]
        return DecoderCache(keys, _as_attention_mask(image_mask))

    def step(self, input_ids: Tensor, cache: DecoderCache) -> Tensor:
        """Logits (B, V) of what follows the next token; the cache grows by it.

        Args:
            input_ids: (B,), the token written last.
        """
        x = self._embed(input_ids[:, None], cache.length)
        grown = []
        for number, (block, keys) in enumerate(zip(self.blocks, cache.image, strict=True)):
            past = cache.text[number] if cache.text else None
            x, after = block(x, keys, None, cache.image_mask, past)
            grown.append(after)
        cache.text = grown
        return self.logits(self.norm(x[:, 0]))

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., V), by the token embedding."""
        return F.linear(hidden, self.token_embeddings.weight)

    def _embed(self, input_ids: Tensor, start: int) -> Tensor:
        positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        return self.token_embeddings(input_ids) + self.position_embeddings(positions)


def _block(module: nn.Module) -> CrossBlock:
    assert isinstance(module, CrossBlock)
    return module


def _as_attention_mask(mask: Tensor | None) -> Tensor | None:
    """(B, K) -> (B, 1, 1, K)."""
    return None if mask is None else mask[:, None, None, :]


def _merge(heads: Tensor) -> Tensor:
    """(B, heads, T, width) -> (B, T, heads * width)."""
    return heads.transpose(1, 2).flatten(2)
