"""The image encoder: Primus' transformer over a list of kept tokens with their positions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colipri.architectures.local_attention import LocalAttention, window_order
from colipri.architectures.packing import Packing, Padding, joined_order, to_device
from colipri.architectures.rope import (
    Grid,
    check_head_dim,
    grid_positions,
    grid_rotation,
    rotation,
)
from colipri.architectures.stems import build_stem, embed_patches
from colipri.architectures.token_merging import check_share, encode_merging
from colipri.architectures.tokens import select_tokens
from colipri.architectures.transformer import FINAL_NORMS, Transformer

__all__ = ["CHECKPOINTING", "PRESETS", "PrimusEncoder", "select_tokens"]

# Sizes of the Primus paper (arXiv 2503.01835); heads are 66 wide, in M 72.
PRESETS: dict[str, dict[str, int]] = {
    "S": {"embed_dim": 396, "depth": 12, "num_heads": 6},
    "B": {"embed_dim": 792, "depth": 12, "num_heads": 12},
    "M": {"embed_dim": 864, "depth": 16, "num_heads": 12},
    "L": {"embed_dim": 1056, "depth": 24, "num_heads": 16},
}
CHECKPOINTING = ("none", "mlp", "full")


@dataclass(frozen=True)
class Arranged:
    """Tokens of a batch as the blocks take them.

    Attributes:
        x: (T, D), registers included.
        rope: (T, head_dim / 2, 2).
        packing: which tokens belong to one sample.
        windows: which tokens see each other in local blocks; None where all blocks are global.
        place: where the tokens without registers are, in the order in which they came; None if
            they are all there is and in their order.
    """

    x: Tensor
    rope: Tensor
    packing: Packing
    windows: Packing | None
    place: Tensor | None


class PrimusEncoder(nn.Module):
    """3D vision transformer that computes only with the tokens it is given.

    Parameter names are those of dynamic-network-architectures' Primus without its decoder
    (``down_projection``, ``eva``, ``register_tokens``); see colipri.checkpoints.weight_conversion.

    Args:
        input_channels: C.
        embed_dim, depth, num_heads: D, number of blocks, heads (D / heads a multiple of 6).
        patch_embed_size: voxels of one token per axis, powers of two.
        stem: "linear" (Primus), "v2", "v3" (PrimusV2 and V3: convolutional), "light" or
            "resnet" (ours: convolutional stems that start at half resolution, for small machines).
        stem_kwargs: options of the stem (colipri.architectures.stems).
        mlp_ratio: hidden width of the MLP / D.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0.
        init_values: LayerScale's start, None for none.
        scale_attn_inner: normalize inside attention, before the output projection.
        num_register_tokens: extra tokens without position (arXiv 2309.16588); dropped at the end.
        position_grid: grid of a learned absolute position embedding, as Primus has by default; None
            for none (released COLIPRI), which leaves no weight that depends on the image size.
        activation_checkpointing: "none", "mlp" (recompute the MLP halves) or "full" (whole blocks).
        final_norm: "layer" (Primus) or "affine", see colipri.architectures.transformer.
        attention: ``window`` (tokens per axis) and ``global_blocks`` of local attention
            (colipri.architectures.local_attention); None: all blocks attend to all tokens.

    Attributes:
        merged_share: of the tokens of a sample, to merge on their way through the blocks
            (:meth:`merge_tokens`); 0 for none, which is exact.

    Raises:
        ValueError: sizes that do not fit together; the message says which.
    """

    has_class_token = False  # an image's embedding is pooled from its tokens

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
        position_grid: Sequence[int] | None = None,
        activation_checkpointing: str = "none",
        final_norm: str = "layer",
        attention: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if final_norm not in FINAL_NORMS:
            raise ValueError(
                f"final_norm must be one of {', '.join(FINAL_NORMS)}, not {final_norm!r}"
            )
        if activation_checkpointing not in CHECKPOINTING:
            raise ValueError(
                f"activation_checkpointing must be one of {', '.join(CHECKPOINTING)}, "
                f"not {activation_checkpointing!r}"
            )
        self.embed_dim = embed_dim
        self.head_dim = check_head_dim(embed_dim, num_heads)
        self.patch_embed_size = tuple(int(size) for size in patch_embed_size)
        self.activation_checkpointing = activation_checkpointing
        self.merged_share = 0.0
        self.local = None if attention is None else LocalAttention.of(depth, **attention)
        self.down_projection = build_stem(
            stem, input_channels, embed_dim, self.patch_embed_size, stem_kwargs or {}
        )
        self.eva = Transformer(
            embed_dim,
            depth,
            num_heads,
            mlp_ratio,
            drop_path_rate,
            init_values,
            scale_attn_inner,
            final_norm,
        )
        self.num_register_tokens = num_register_tokens
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
            nn.init.normal_(self.register_tokens, std=1e-6)
        self.position_grid = None if position_grid is None else tuple(position_grid)
        if self.position_grid is not None:
            rows = num_register_tokens + prod(self.position_grid)
            self.eva.pos_embed = nn.Parameter(torch.zeros(1, rows, embed_dim))
            nn.init.trunc_normal_(self.eva.pos_embed, std=0.02)

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded: the blocks, then the rest."""
        yield from self.eva.blocks
        yield self

    def merge_tokens(self, share: float) -> None:
        """Merge alike tokens in inference (colipri.architectures.token_merging).

        Args:
            share: of a sample's tokens that are merged into others by the last block; 0 for none.

        Raises:
            ValueError: a share out of range, or attention is local: a merged token would lie in
                several windows.
        """
        if share and self.local is not None:
            raise ValueError("tokens cannot be merged where attention is local")
        self.merged_share = check_share(share)

    def grid(self, spatial: Sequence[int]) -> Grid:
        """Return the tokens per axis of an image of this size.

        Raises:
            ValueError: a size is not a multiple of the token patch.
        """
        if any(size % step for size, step in zip(spatial, self.patch_embed_size, strict=True)):
            raise ValueError(
                f"image size {tuple(spatial)} is not a multiple of the token patch "
                f"{self.patch_embed_size}"
            )
        a, b, c = (size // step for size, step in zip(spatial, self.patch_embed_size, strict=True))
        return a, b, c

    def tokenize(self, image: Tensor) -> tuple[Tensor, Grid]:
        """(B, C, A0, A1, A2) -> tokens (B, N, D) with axis 0 slowest, and the grid."""
        grid = self.grid(image.shape[2:])
        tokens = embed_patches(self.down_projection, image)
        return tokens.unflatten(0, (len(image), -1)), grid

    def encode(
        self, tokens: Tensor, positions: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Run the transformer on any list of tokens.

        Args:
            tokens: (B, K, D).
            positions: (B, K, 3) or (K, 3) integers.
            attention_mask: (B, K) bool, False at padding, whose content does not matter, not even
                NaN.

        Returns:
            (B, K, D), normalized by the final norm; zero at padding.

        Raises:
            ValueError: a position outside the grid of the absolute position embedding.
        """
        batch, length = tokens.shape[:2]
        padding = Padding.of((batch, length), attention_mask)
        packed = padding.pack(positions.expand(batch, length, 3))
        if self.position_grid is not None:
            self._require_inside((packed.amax(dim=0) + 1).tolist())
        rope = rotation(packed, self.head_dim)
        where = None if self.local is None else packed.cpu().numpy()
        x = self.encode_packed(padding.pack(tokens), packed, rope, padding.lengths, where)
        return padding.unpack(x)

    def forward(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Encode an image, or only the kept tokens of it.

        Args:
            image: (B, C, A0, A1, A2), normalized.
            ids_keep: (B, K) token indices (:func:`select_tokens`); None for all N.
            attention_mask: (B, K) bool, False at padding; None if there is none. Indices and mask
                belong on the CPU: reading a mask on a GPU makes the host wait for it.

        Returns:
            (B, K, D) or (B, N, D); zero at padding.
        """
        grid = self.grid(image.shape[2:])
        self._require_inside(grid)
        positions = grid_positions(grid, image.device)
        rope = grid_rotation(grid, self.head_dim, image.device)
        if ids_keep is None:
            batch, count = len(image), len(positions)
            padding = Padding((batch, count), (count,) * batch, None)
            kept = torch.arange(count, device=image.device).repeat(batch)
            tokens = embed_patches(self.down_projection, image)
        else:
            padding = Padding.of((ids_keep.shape[0], ids_keep.shape[1]), attention_mask)
            kept = to_device(padding.pack(ids_keep), image.device)
            sample = Packing.of(padding.lengths, image.device).sample
            tokens = embed_patches(self.down_projection, image, (sample, kept))
        where = None if self.local is None else _positions_on_host(grid, padding, ids_keep)
        x = self.encode_packed(tokens, positions[kept], rope[kept], padding.lengths, where)
        return padding.unpack(x)

    def encode_packed(
        self,
        tokens: Tensor,
        positions: Tensor,
        rope: Tensor,
        lengths: Sequence[int],
        where: np.ndarray | None = None,
    ) -> Tensor:
        """Run the transformer on the tokens of all samples, one sample after the other.

        Args:
            tokens: (T, D).
            positions: (T, 3) integers.
            rope: (T, head_dim / 2, 2), the rotations of these positions.
            lengths: tokens of each sample; they add up to T.
            where: the same positions on the host; needed where attention is local.

        Returns:
            (T, D), normalized by the final norm.
        """
        if self.merged_share and not self.training:
            return self._encode_merging(tokens, positions, rope, lengths)
        tokens = self._with_absolute_positions(tokens, positions)
        arranged = self.arrange(tokens, rope, lengths, where)
        last = deque(self.block_outputs(arranged), maxlen=1)[0]
        return self.eva.norm(last if arranged.place is None else last[arranged.place])

    def _encode_merging(
        self, tokens: Tensor, positions: Tensor, rope: Tensor, lengths: Sequence[int]
    ) -> Tensor:
        """:meth:`encode_packed`, sample by sample, with tokens merged on the way."""
        x, _, packing, place = self._with_registers(
            self._with_absolute_positions(tokens, positions), rope, lengths
        )
        registers = self.num_register_tokens
        still = positions.new_zeros(registers, 3)
        parts = zip(x.split(packing.lengths), positions.split(list(lengths)), strict=True)
        last = torch.cat(
            [
                encode_merging(
                    self.eva, part, torch.cat((still, where)), self.merged_share, registers
                )
                for part, where in parts
            ]
        )
        return self.eva.norm(last if place is None else last[place])

    def arrange(
        self, tokens: Tensor, rope: Tensor, lengths: Sequence[int], where: np.ndarray | None = None
    ) -> Arranged:
        """Add registers, and put the tokens of each sample in the order of the blocks.

        Args:
            tokens: (T, D).
            rope: (T, head_dim / 2, 2).
            lengths: tokens of each sample.
            where: (T, 3) positions on the host; needed where attention is local.
        """
        x, rope, packing, place = self._with_registers(tokens, rope, lengths)
        if self.local is None:
            return Arranged(x, rope, packing, None, place)
        if where is None:
            raise ValueError("local attention needs the positions of the tokens on the host")
        if self.num_register_tokens:
            count = [self.num_register_tokens] * len(lengths)
            nowhere = np.full((sum(count), 3), -1)
            where = np.concatenate((nowhere, where))[joined_order(count, lengths, x.device)[1]]
        order, of_windows = window_order(where, packing.lengths, self.local.window)
        there = to_device(order, x.device)
        back = to_device(order.argsort(), x.device)
        windows = Packing.of(of_windows, x.device)
        place = back if place is None else back[place]
        return Arranged(x[there], rope[there], packing, windows, place)

    def block_outputs(self, arranged: Arranged) -> Iterator[Tensor]:
        """Yield the tokens (T, D) after each block.

        Args:
            arranged: of :meth:`arrange`.
        """
        x, rope, packing = arranged.x, arranged.rope[:, None, None], arranged.packing
        drops = self.eva.draw_drop_path(packing)
        recompute = self.activation_checkpointing if torch.is_grad_enabled() else "none"
        for number, (block, drop) in enumerate(zip(self.eva.blocks, drops, strict=True)):
            seen = packing
            if arranged.windows is not None and self.local is not None:
                seen = packing if number in self.local.global_blocks else arranged.windows
            if recompute == "full":
                # nothing random happens inside, so there is no random state to replay
                x = checkpoint(
                    block, x, rope, seen, drop, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = block(x, rope, seen, drop, recompute == "mlp")
            yield x

    def _with_registers(
        self, x: Tensor, rope: Tensor, lengths: Sequence[int]
    ) -> tuple[Tensor, Tensor, Packing, Tensor | None]:
        """Put the registers before the tokens of each sample; also where the tokens then are."""
        count, batch = self.num_register_tokens, len(lengths)
        if not count:
            return x, rope, Packing.of(lengths, x.device), None
        packing, order = joined_order([count] * batch, lengths, x.device)
        registers = self._registers()[0].to(x.dtype).repeat(batch, 1)
        still = torch.zeros_like(rope[:1])  # no position: rotated by nothing
        still[..., 0] = 1.0
        place = to_device(np.flatnonzero(order >= len(registers)), x.device)
        arranged = to_device(order, x.device)
        rope = torch.cat((still.expand(len(registers), -1, -1), rope))[arranged]
        return torch.cat((registers, x))[arranged], rope, packing, place

    def _with_absolute_positions(self, tokens: Tensor, positions: Tensor) -> Tensor:
        if self.position_grid is None:
            return tokens
        _, middle, last = self.position_grid
        rows = (positions[..., 0] * middle + positions[..., 1]) * last + positions[..., 2]
        assert isinstance(self.eva.pos_embed, Tensor)
        embedding = self.eva.pos_embed[0, self.num_register_tokens :]
        return tokens + embedding[rows]

    def _require_inside(self, grid: Sequence[int]) -> None:
        limits = self.position_grid
        if limits and any(size > most for size, most in zip(grid, limits, strict=True)):
            raise ValueError(
                f"the absolute position embedding is for {limits} tokens and the image is larger; "
                "build the encoder with position_grid=None"
            )

    def _registers(self) -> Tensor:
        if self.position_grid is None:
            return self.register_tokens
        assert isinstance(self.eva.pos_embed, Tensor)
        return self.register_tokens + self.eva.pos_embed[:, : self.num_register_tokens]


def _positions_on_host(grid: Grid, padding: Padding, ids_keep: Tensor | None) -> np.ndarray:
    """(T, 3) positions of the kept tokens, as numpy array; None keeps all tokens."""
    if ids_keep is None:
        kept = np.tile(np.arange(padding.shape[1]), padding.shape[0])
    else:
        kept = ids_keep.cpu().numpy().reshape(-1)
        kept = kept if padding.rows is None else kept[padding.rows]
    return np.stack(np.unravel_index(kept, grid), axis=-1)
