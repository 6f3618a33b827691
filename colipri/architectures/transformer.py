"""The transformer of Primus (EVA-02): rotary attention and SwiGLU, each with an inner norm.

Primus: arXiv 2503.01835; EVA-02: arXiv 2303.11331. Parameter names are those of
dynamic-network-architectures' Primus, so that weights are interchangeable; the code is our own,
because other projects' private blocks change without notice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colipri.architectures.rope import check_head_dim, rotate


class Attention(nn.Module):
    """Multi-head self-attention; queries and keys are rotated by position.

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
        self, x: Tensor, rope: Tensor, prefix: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Attend from every token to every token.

        Args:
            x: (B, prefix + K, D).
            rope: (K, 1, head_dim / 2) or (B, K, 1, head_dim / 2) complex (rope.rotation).
            prefix: number of first tokens that have no position.
            mask: (B, 1, 1, prefix + K) bool, False at keys nobody attends to.

        Returns:
            (B, prefix + K, D).
        """
        batch, length, dim = x.shape
        shape = (batch, length, self.num_heads, self.head_dim)
        query = _rotated(self.q_proj(x).view(shape), rope, prefix).transpose(1, 2)
        key = _rotated(self.k_proj(x).view(shape), rope, prefix).transpose(1, 2)
        value = self.v_proj(x).view(shape).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, dim)
        return self.proj(self.norm(mixed))


class SwiGLU(nn.Module):
    """Gated MLP with an inner norm (arXiv 2002.05202, 2110.09456)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(dim, hidden)
        self.fc1_x = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(self.norm(F.silu(self.fc1_g(x)) * self.fc1_x(x)))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops the branch of some samples in training."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Zero the branch of a sample, or scale it so that the expectation stays."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    """Pre-norm attention and MLP, each scaled (LayerScale, arXiv 2103.17239) and added.

    Args:
        dim: D, width of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: probability to drop a branch of a sample in training.
        init_values: start of LayerScale; None for no LayerScale.
        inner_norm: normalize inside attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float,
        init_values: float | None,
        inner_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, inner_norm)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio))
        self.drop_path1 = DropPath(drop_path)
        self.drop_path2 = DropPath(drop_path)
        self.gamma_1 = self.gamma_2 = None
        if init_values is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), init_values))
            self.gamma_2 = nn.Parameter(torch.full((dim,), init_values))

    def forward(
        self,
        x: Tensor,
        rope: Tensor,
        prefix: int = 0,
        mask: Tensor | None = None,
        recompute_mlp: bool = False,
    ) -> Tensor:
        """Apply attention and MLP.

        Args:
            x: (B, prefix + K, D).
            rope: as in :class:`Attention`.
            prefix: number of first tokens that have no position.
            mask: (B, 1, 1, prefix + K) bool, False at keys nobody attends to.
            recompute_mlp: keep only the input of the MLP half for the backward pass, which saves
                more than half of a block's activations for 6 % more arithmetic at 13,824 tokens,
                because attention, three quarters of the work there, is not computed twice.

        Returns:
            (B, prefix + K, D).
        """
        x = x + self.drop_path1(_scaled(self.attn(self.norm1(x), rope, prefix, mask), self.gamma_1))
        if recompute_mlp and torch.is_grad_enabled():
            branch = checkpoint(self._mlp_branch, x, use_reentrant=False)
        else:
            branch = self._mlp_branch(x)
        return x + branch

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.drop_path2(_scaled(self.mlp(self.norm2(x)), self.gamma_2))


def _rotated(features: Tensor, rope: Tensor, prefix: int) -> Tensor:
    """Queries or keys (B, prefix + K, heads, head_dim), rotated except for the prefix."""
    if not prefix:
        return rotate(features, rope)
    return torch.cat((features[:, :prefix], rotate(features[:, prefix:], rope)), dim=1)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


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
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, rate, init_values, scale_attn_inner)
            for rate in rates
        )
        self.norm = FINAL_NORMS[final_norm](embed_dim)
        self.register_parameter("pos_embed", None)
        self._initialize()

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
