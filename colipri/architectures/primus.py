"""The image encoder: Primus' transformer over a list of kept tokens with their positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colipri.architectures.blocks import Block
from colipri.architectures.rope import check_head_dim, grid_positions, rotary_embedding
from colipri.architectures.stems import build_stem
from colipri.architectures.tokens import select_tokens

__all__ = ["PRESETS", "PrimusEncoder", "select_tokens"]

# Sizes of the Primus paper (arXiv 2503.01835); head widths are 66 and 72.
PRESETS: dict[str, dict[str, int]] = {
    "S": {"embed_dim": 396, "depth": 12, "num_heads": 6},
    "B": {"embed_dim": 792, "depth": 12, "num_heads": 12},
    "M": {"embed_dim": 864, "depth": 16, "num_heads": 12},
    "L": {"embed_dim": 1056, "depth": 24, "num_heads": 16},
}
CHECKPOINTING = ("none", "mlp", "full")


class Transformer(nn.Module):
    """Blocks and final norm; named ``eva`` in the encoder, as in Primus' state dict."""

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path_rate: float,
        init_values: float | None,
        scale_attn_inner: bool,
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, rate, init_values, scale_attn_inner)
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal 0.02, output layers scaled down with depth (as BEiT and EVA)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, Block)
            with torch.no_grad():
                block.attn.proj.weight.div_(math.sqrt(2.0 * number))
                block.mlp.fc2.weight.div_(math.sqrt(2.0 * number))


class PrimusEncoder(nn.Module):
    """3D vision transformer that computes only with the tokens it is given.

    Args:
        input_channels: C.
        embed_dim, depth, num_heads: D, number of blocks, heads (D / heads a multiple of 6).
        patch_embed_size: voxels of one token per axis, powers of two.
        stem: "linear" (Primus), "v2", "v3" (PrimusV2 and V3: convolutional), or "light" (ours: a
            convolutional stem that starts at half resolution, for small machines).
        stem_kwargs: options of the stem (colipri.architectures.stems).
        drop_path_rate: stochastic depth of the last block; rises linearly from 0.
        init_values: LayerScale's start, None for none.
        num_register_tokens: extra tokens without position (arXiv 2309.16588); dropped at the end.
        activation_checkpointing: "none", "mlp" (recompute the MLP halves) or "full" (whole blocks).
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_embed_size: Sequence[int] = (8, 8, 8),
        stem: str = "linear",
        stem_kwargs: dict[str, Any] | None = None,
        mlp_ratio: float = 8 / 3,
        drop_path_rate: float = 0.0,
        init_values: float | None = 0.1,
        scale_attn_inner: bool = True,
        num_register_tokens: int = 0,
        activation_checkpointing: str = "none",
    ) -> None:
        super().__init__()
        if activation_checkpointing not in CHECKPOINTING:
            raise ValueError(f"activation_checkpointing must be one of {', '.join(CHECKPOINTING)}")
        self.embed_dim = embed_dim
        self.head_dim = check_head_dim(embed_dim, num_heads)
        self.patch_embed_size = tuple(int(size) for size in patch_embed_size)
        self.activation_checkpointing = activation_checkpointing
        self.down_projection = build_stem(
            stem, input_channels, embed_dim, self.patch_embed_size, stem_kwargs or {}
        )
        self.eva = Transformer(
            embed_dim, depth, num_heads, mlp_ratio, drop_path_rate, init_values, scale_attn_inner
        )
        self.num_register_tokens = num_register_tokens
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
            nn.init.normal_(self.register_tokens, std=1e-6)

    def grid(self, spatial: Sequence[int]) -> tuple[int, int, int]:
        """Tokens per axis of an image of this size.

        Raises:
            ValueError: a size is no multiple of the token patch.
        """
        if any(size % step for size, step in zip(spatial, self.patch_embed_size, strict=True)):
            raise ValueError(
                f"image size {tuple(spatial)} is no multiple of {self.patch_embed_size}"
            )
        a, b, c = (size // step for size, step in zip(spatial, self.patch_embed_size, strict=True))
        return a, b, c

    def tokenize(self, image: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """(B, C, A0, A1, A2) -> tokens (B, N, D) with axis 0 slowest, and the grid."""
        grid = self.grid(image.shape[2:])
        return self.down_projection(image).flatten(2).transpose(1, 2), grid

    def encode(self, tokens: Tensor, positions: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Run the transformer on any list of tokens.

        Args:
            tokens: (B, K, D).
            positions: (B, K, 3) or (K, 3) integers.
            key_mask: (B, K) bool, False at fillers; their outputs are zero.

        Returns:
            (B, K, D), normalised by the final norm.
        """
        sine, cosine = rotary_embedding(positions, self.head_dim)
        if positions.ndim == 3:
            sine, cosine = sine.unsqueeze(1), cosine.unsqueeze(1)
        prefix = self.num_register_tokens
        if prefix:
            tokens = torch.cat((self.register_tokens.expand(len(tokens), -1, -1), tokens), dim=1)
        mask = None
        if key_mask is not None:
            full = nn.functional.pad(key_mask, (prefix, 0), value=True)
            mask = full[:, None, None, :]
        x = tokens
        for block in self.eva.blocks:
            if self.activation_checkpointing == "full" and torch.is_grad_enabled():
                x = checkpoint(block, x, (sine, cosine), prefix, mask, False, use_reentrant=False)
            else:
                recompute = self.activation_checkpointing == "mlp"
                x = block(x, (sine, cosine), prefix, mask, recompute)
        x = self.eva.norm(x)[:, prefix:]
        return x if key_mask is None else x * key_mask.unsqueeze(-1)

    def forward(
        self, image: Tensor, keep: Tensor | None = None, key_mask: Tensor | None = None
    ) -> Tensor:
        """Encode an image, or only the kept tokens of it.

        Args:
            image: (B, C, A0, A1, A2), normalised.
            keep: (B, K) token indices (:func:`select_tokens`); None for all N.
            key_mask: (B, K) bool, False at fillers.

        Returns:
            (B, K, D) or (B, N, D).
        """
        tokens, grid = self.tokenize(image)
        positions = grid_positions(grid, image.device)
        if keep is not None:
            tokens = tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
            positions = positions[keep]
        return self.encode(tokens, positions, key_mask)
