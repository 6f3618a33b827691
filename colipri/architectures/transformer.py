"""The transformer of Primus (EVA-02): rotary attention and SwiGLU, each with an inner norm.

Primus: arXiv 2503.01835; EVA-02: arXiv 2303.11331. Parameter names are those of
dynamic-network-architectures' Primus, so that weights are interchangeable; the code is our own,
because other projects' private blocks change without notice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colipri.architectures.packing import Packing, attend, to_device
from colipri.architectures.rope import check_head_dim, rotate_queries_and_keys


class Attention(nn.Module):
    """Multi-head self-attention; queries and keys are rotated by position.

    The three projections are parameters of their own, as in Primus' state dict, and one matrix
    product.

    Args:
        dim: token width D.
        num_heads: heads of width D / num_heads, a multiple of 6.
        inner_norm: normalize before the output projection (EVA-02's sub-LN).
    """

    def __init__(self, dim: int, num_heads: int, inner_norm: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = check_head_dim(dim, num_heads)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)  # a key bias cancels in the softmax
        self.v_proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim) if inner_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, rope: Tensor, packing: Packing, gain: Tensor | None = None
    ) -> Tensor:
        """Attend from every token to every token of the same sample.

        Args:
            x: (T, D), the tokens of all samples.
            rope: (T, 1, 1, head_dim / 2, 2), see :func:`colipri.architectures.rope.rotation`.
            packing: which tokens belong to one sample.
            gain: (D,) factor of the output; None for 1.

        Returns:
            (T, D).
        """
        query, key, value = self.project(x, rope)
        # a statement of its own: older compilers cannot keep a bound method over a graph break
        mixed = attend(query, key, value, packing)
        return self.output(mixed, gain)

    def project(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, (T, heads, head_dim) each.

        Args:
            x: (T, D).
            rope: as in :meth:`forward`.
        """
        q, k, v = self.q_proj, self.k_proj, self.v_proj
        weight = torch.cat((q.weight, k.weight, v.weight))
        bias = torch.cat((q.bias, torch.zeros_like(q.bias), v.bias))
        qkv = F.linear(x, weight, bias).unflatten(-1, (3, self.num_heads, self.head_dim))
        query, key, value = rotate_queries_and_keys(qkv, rope).unbind(1)
        return query, key, value

    def output(self, mixed: Tensor, gain: Tensor | None = None) -> Tensor:
        """Return what attention adds to the tokens: (T, heads, head_dim) -> (T, D)."""
        return _linear(self.norm(mixed.flatten(1)), self.proj, gain)


class SwiGLU(nn.Module):
    """Gated MLP with an inner norm (arXiv 2002.05202, 2110.09456); gate and values in one product.

    Args:
        dim: D, width of a token.
        hidden: width of gate and values.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(dim, hidden)
        self.fc1_x = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., D); ``gain`` (D,) is a factor of the output."""
        gate, values = self.fc1_g, self.fc1_x
        both = F.linear(
            x, torch.cat((gate.weight, values.weight)), torch.cat((gate.bias, values.bias))
        )
        gated: Tensor = _Gate.apply(both)
        return _linear(self.norm(gated), self.fc2, gain)


class _Gate(torch.autograd.Function):
    """silu(gate) * values; the backward pass computes silu again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        """(..., 2 H) -> (..., H)."""
        ctx.save_for_backward(both)
        gate, values = both.chunk(2, dim=-1)
        return F.silu(gate).mul_(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Gradients of gate and values, side by side as they came."""
        (both,) = ctx.saved_tensors
        gate, values = both.chunk(2, dim=-1)
        of_gate = torch.ops.aten.silu_backward(gradient * values, gate)
        return torch.cat((of_gate, F.silu(gate).mul_(gradient)), dim=-1)


def _linear(x: Tensor, layer: nn.Linear, gain: Tensor | None) -> Tensor:
    """Apply a layer and LayerScale: scaled are the few weights and not the many tokens."""
    if gain is None:
        return layer(x)
    return F.linear(x, layer.weight * gain[:, None], layer.bias * gain)


class Block(nn.Module):
    """Pre-norm attention and MLP, each scaled (LayerScale, arXiv 2103.17239) and added.

    Args:
        dim: D, width of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over D.
        init_values: start of LayerScale; None for no LayerScale.
        inner_norm: normalize inside attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        init_values: float | None,
        inner_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, inner_norm)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio))
        self.gamma_1 = self.gamma_2 = None
        if init_values is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), init_values))
            self.gamma_2 = nn.Parameter(torch.full((dim,), init_values))

    def forward(
        self,
        x: Tensor,
        rope: Tensor,
        packing: Packing,
        drop: Tensor | None = None,
        recompute_mlp: bool = False,
    ) -> Tensor:
        """Apply attention and MLP.

        Args:
            x: (T, D), the tokens of all samples.
            rope: as in :class:`Attention`.
            packing: which tokens belong to one sample.
            drop: (2, T, 1) factors of the two branches (:meth:`Transformer.draw_drop_path`); None
                for 1.
            recompute_mlp: keep only the input of the MLP half for the backward pass, which saves
                more than half of a block's activations for 6 % more arithmetic at 13,824 tokens,
                because attention, three quarters of the work there, is not computed twice.

        Returns:
            (T, D).
        """
        branch = self.attn(self.norm1(x), rope, packing, self.gamma_1)
        x = _add(x, branch, None if drop is None else drop[0])
        if recompute_mlp and torch.is_grad_enabled():
            branch = checkpoint(self._mlp_branch, x, use_reentrant=False, preserve_rng_state=False)
        else:
            branch = self._mlp_branch(x)
        return _add(x, branch, None if drop is None else drop[1])

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x), self.gamma_2)


def _add(x: Tensor, branch: Tensor, factor: Tensor | None) -> Tensor:
    return x + branch if factor is None else torch.addcmul(x, branch, factor)


class ChannelAffine(nn.Module):
    """Gain and shift per channel: a LayerNorm that keeps the norm of its input."""

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

    Args:
        embed_dim: D, width of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over D.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        init_values: start of LayerScale; None for no LayerScale.
        scale_attn_inner: normalize inside attention.
        final_norm: "layer" (Primus) or "affine" (:class:`ChannelAffine`, with parameters of the
            same names). After a convolutional stem and few blocks a LayerNorm makes tokens in which
            nothing was found as large as the others, and a maximum over tokens then picks their
            noise.
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
        self.drop_rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, init_values, scale_attn_inner)
            for _ in range(depth)
        )
        self.norm = FINAL_NORMS[final_norm](embed_dim)
        self.register_parameter("pos_embed", None)
        self._initialize()

    def draw_drop_path(self, packing: Packing) -> list[Tensor | None]:
        """Draw stochastic depth (arXiv 1603.09382): which samples leave out which branches.

        The draws are arguments of the blocks. As constants of each block they would make every
        block another program for torch.compile.

        Args:
            packing: B samples of T tokens in all.

        Returns:
            Per block the factors (2, T, 1) of its two branches: 0, or 1 / (1 - rate) so that the
            expectation stays; None in evaluation and where nothing is ever dropped.
        """
        if not self.training or not any(self.drop_rates):
            return [None] * len(self.blocks)
        device = packing.sample.device
        keep = to_device(1.0 - np.array(self.drop_rates, dtype=np.float32), device)[:, None, None]
        draws = torch.rand(len(self.drop_rates), 2, len(packing.lengths), device=device)
        factors = (draws < keep) / keep
        return list(factors[..., packing.sample].unsqueeze(-1))

    def _initialize(self) -> None:
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
