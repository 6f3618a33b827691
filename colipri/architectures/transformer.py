"""The stack of blocks with its final norm and its initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from colipri.architectures.blocks import Block


class ChannelAffine(nn.Module):
    """Gain and shift per channel: a LayerNorm that keeps the size of what it is given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return x * self.weight + self.bias


FINAL_NORMS = {"layer": nn.LayerNorm, "affine": ChannelAffine}


class Transformer(nn.Module):
    """Blocks and final norm; named ``eva`` in the encoder, as in Primus' state dict.

    ``pos_embed``, a learned absolute position embedding, is added by encoders that have one.
    ``final_norm`` is "layer" (Primus) or "affine" (:class:`ChannelAffine`, with parameters of the
    same names): behind a convolutional stem and few blocks a LayerNorm makes tokens in which
    nothing was found as large as the others, and a maximum over tokens then picks their noise.
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
        final_norm: str = "layer",
    ) -> None:
        super().__init__()
        # on the CPU also where a meta device is the default: the rates are needed as numbers
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, rate, init_values, scale_attn_inner)
            for rate in rates
        )
        self.norm = FINAL_NORMS[final_norm](embed_dim)
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
