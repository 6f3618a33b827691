"""The stack of blocks with its final norm and its initialisation."""

from __future__ import annotations

import math

import torch
from torch import nn

from colipri.architectures.blocks import Block


class Transformer(nn.Module):
    """Blocks and final norm; named ``eva`` in the encoder, as in Primus' state dict.

    ``pos_embed``, a learned absolute position embedding, is added by encoders that have one.
    """

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
        # on the CPU also where a meta device is the default: the rates are needed as numbers
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, rate, init_values, scale_attn_inner)
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.register_parameter("pos_embed", None)
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
