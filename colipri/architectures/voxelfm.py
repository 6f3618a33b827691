"""The encoder of VoxelFM (arXiv 2604.04133): a DINO-trained 3D vision transformer, for inference.

It differs from Primus in its blocks (one layer for queries, keys and values, a plain MLP, no norm
inside attention), in a class token that stands for the image, and in its rotary positions: they are
relative to the image (-1 to 1 along each axis), so features depend on the size of the token grid.
Parameter names are those of its published code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colipri.architectures.packing import Packing, Padding, attend, to_device
from colipri.architectures.rope import Grid, check_head_dim, rotate

_NORM_EPSILON = 1e-5


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: Tensor, packing: Packing) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        mixed = attend(rotate(query, rope), rotate(key, rope), value, packing)
        projected: Tensor = self.proj(mixed.flatten(1))
        return projected


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return result


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.attn = _Attention(width, num_heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.mlp = _Mlp(width, hidden)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor, rope: Tensor, packing: Packing) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope, packing))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class _PatchEmbedding(nn.Module):
    def __init__(self, channels: int, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        size = (patch[0], patch[1], patch[2])
        self.proj = nn.Conv3d(channels, width, size, stride=size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, N, D)."""
        tokens: Tensor = self.proj(image)
        return tokens.flatten(2).transpose(1, 2)


class VoxelFMEncoder(nn.Module):
    """VoxelFM's vision transformer, in evaluation mode only: it has no stochastic depth.

    Args:
        input_channels: 1 in the published model.
        embed_dim, depth, num_heads: D, blocks, heads (D / heads a multiple of 6).
        patch_embed_size: voxels of a token per axis; 14 in the published model.
        mlp_ratio: hidden width of the MLP / D.
        num_register_tokens: beside the class token; none of them has a position.
        rope_base: of the periods of the rotary positions.

    Attributes:
        has_class_token: the embedding of an image is that of its class token.

    Raises:
        ValueError: the width of a head is not a multiple of 6.
    """

    has_class_token = True
    local = None  # attention: all tokens see each other

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_embed_size: Sequence[int] = (14, 14, 14),
        mlp_ratio: float = 4.0,
        num_register_tokens: int = 4,
        rope_base: float = 100.0,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.head_dim = check_head_dim(embed_dim, num_heads)
        self.patch_embed_size = tuple(int(size) for size in patch_embed_size)
        self.rope_base = rope_base
        self.patch_embed = _PatchEmbedding(input_channels, embed_dim, self.patch_embed_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
        hidden = int(embed_dim * mlp_ratio)
        self.blocks = nn.ModuleList(_Block(embed_dim, num_heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=_NORM_EPSILON)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.register_tokens, std=1e-6)

    @classmethod
    def from_settings(cls, arguments: Mapping[str, Any]) -> VoxelFMEncoder:
        """Build from the arguments in a plan; those of Primus alone are not looked at."""
        names = ("input_channels", "embed_dim", "depth", "num_heads", "patch_embed_size")
        more = ("mlp_ratio", "num_register_tokens", "rope_base")
        return cls(**{name: arguments[name] for name in (*names, *more)})

    def merge_tokens(self, share: float) -> None:
        """Refuse to merge tokens: positions are relative to the image.

        Raises:
            ValueError: a share above 0.
        """
        if share:
            raise ValueError("tokens of VoxelFM cannot be merged")

    def grid(self, spatial: Sequence[int]) -> Grid:
        """Return the tokens per axis of an image of this size."""
        a, b, c = (size // step for size, step in zip(spatial, self.patch_embed_size, strict=True))
        return a, b, c

    def forward(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Encode images, or some of their tokens.

        Args:
            image: (B, C, A0, A1, A2), normalized.
            ids_keep: (B, K) indices of the tokens; None for all N.
            attention_mask: (B, K) bool on the CPU, False at padding; None if there is none.

        Returns:
            (B, K, D) or (B, N, D); zero at padding.
        """
        return self.encode(image, ids_keep, attention_mask)[0]

    def encode(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode as :meth:`forward` does; also returns the class token.

        Args:
            image, ids_keep, attention_mask: as for :meth:`forward`.

        Returns:
            (B, K, D) tokens, and (B, D) class tokens, both after the final norm.
        """
        batch, grid = len(image), self.grid(image.shape[2:])
        tokens = self.patch_embed(image).float()  # sums stay in float32 under autocast
        if ids_keep is None:
            ids_keep = torch.arange(tokens.shape[1]).expand(batch, -1)
        padding = Padding.of((batch, ids_keep.shape[1]), attention_mask)
        kept = to_device(ids_keep, image.device)
        tokens = padding.pack(tokens.gather(1, kept[..., None].expand(-1, -1, self.embed_dim)))
        table = to_device(relative_rotation(grid, self.head_dim, self.rope_base), image.device)
        rope = table[padding.pack(kept)]
        special = torch.cat((self.cls_token, self.register_tokens), dim=1)[0]
        still = rope.new_zeros(len(special), *rope.shape[1:])  # no position: rotated by nothing
        still[..., 0] = 1.0
        parts = zip(tokens.split(padding.lengths), rope.split(padding.lengths), strict=True)
        pairs = [(torch.cat((special, x)), torch.cat((still, turn))) for x, turn in parts]
        packing = Packing.of([len(x) for x, _ in pairs], image.device)
        x, turns = (torch.cat(part) for part in zip(*pairs, strict=True))
        for block in self.blocks:
            x = block(x, turns[:, None], packing)
        samples = self.norm(x).split(packing.lengths)
        found = torch.cat([sample[len(special) :] for sample in samples])
        return padding.unpack(found), torch.stack([sample[0] for sample in samples])


def relative_rotation(grid: Grid, head_dim: int, base: float) -> Tensor:
    """Cosines and sines of the positions of a grid, relative to it.

    Args:
        grid: tokens per axis; N is their product.
        head_dim: width of a head.
        base: of the periods.

    Returns:
        (N, head_dim / 2, 2) float32, first the pairs of axis 0, then of axes 1 and 2.
    """
    bands = head_dim // 6
    periods = base ** (2.0 * torch.arange(bands, dtype=torch.float32) / (head_dim // 3))
    axes = [2.0 * (torch.arange(0.5, size) / size) - 1.0 for size in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)  # (N, 3)
    angles = (2.0 * math.pi * places[:, :, None] / periods).flatten(1)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)
