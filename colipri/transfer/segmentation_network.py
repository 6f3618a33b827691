"""The network that nnU-Net builds from a plan: our encoder, and a decoder that starts from scratch.

A plans file names this class (``architecture.network_class_name``), so an installed colipri is all
that nnU-Net needs, in training and at prediction. Names of weights are laid out for nnU-Net's own
``-pretrained_weights``: ``down_projection.*`` and ``eva.*`` (and ``register_tokens``) are asked for
strictly, ``decoder.seg_layers.*`` is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.primus import Arranged, PrimusEncoder
from colipri.architectures.rope import Grid, grid_positions, grid_rotation
from colipri.architectures.stems import halvings
from colipri.transfer.decoders import build_decoder

NETWORK_CLASS = "colipri.transfer.segmentation_network.PrimusSegmentation"


class PrimusSegmentation(PrimusEncoder):
    """Segments a patch; any size that is a multiple of the token patch.

    Args:
        input_channels, num_classes, deep_supervision: given by nnU-Net.
        encoder: arguments of :class:`PrimusEncoder` except the channels.
        decoder: arguments of :func:`colipri.transfer.decoders.build_decoder`: ``kind`` ("dense" or
            "patch"), ``base_features``, ``num_depths``.
        strides: where nnU-Net reads the levels of deep supervision: (1, 1, 1), then the halvings
            from voxels to tokens.

    Raises:
        ValueError: arguments that do not fit together; the message names them.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        encoder: dict[str, Any],
        decoder: dict[str, Any],
        strides: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(input_channels, **encoder)
        if [list(stride) for stride in strides] != deep_supervision_strides(self.patch_embed_size):
            raise ValueError(
                f"strides {list(strides)} must be "
                f"{deep_supervision_strides(self.patch_embed_size)} for a token patch of "
                f"{self.patch_embed_size}"
            )
        self.decoder = build_decoder(
            decoder.get("kind", "dense"),
            input_channels,
            self.embed_dim,
            len(self.eva.blocks),
            halvings(self.patch_embed_size),
            num_classes,
            deep_supervision,
            **{name: value for name, value in decoder.items() if name != "kind"},
        )
        self.depths = _evenly_spaced(len(self.eva.blocks), self.decoder.seg_layers.num_depths)

    def forward(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Any:
        """Map (B, C, A0, A1, A2) to (B, classes, A0, A1, A2), or to a list of them per level.

        Args:
            image: (B, C, A0, A1, A2).
            ids_keep: Must be None; a parameter of the encoder.
            attention_mask: Must be None, as ids_keep.
        """
        if ids_keep is not None or attention_mask is not None:
            raise ValueError("a segmentation needs all tokens")
        return self.decoder(image, self.token_maps(image))

    def token_maps(self, image: Tensor) -> list[Tensor]:
        """Return the tokens after the chosen blocks as (B, D, G0, G1, G2); the last has the final
        norm.
        """
        tokens, grid = self.tokenize(image)
        arranged = self._packed(tokens, grid)
        place = arranged.place
        maps = []
        for number, x in enumerate(self.block_outputs(arranged), start=1):
            if number in self.depths:
                level = self.eva.norm(x) if number == len(self.eva.blocks) else x
                level = level if place is None else level[place]
                level = level.unflatten(0, (len(image), -1))
                maps.append(level.transpose(1, 2).unflatten(2, grid))
        return maps

    @torch.compiler.disable
    def _packed(self, tokens: Tensor, grid: Grid) -> Arranged:
        """Arrange (B, N, D) tokens for the blocks; cached tables stay out of torch.compile."""
        self._require_inside(grid)
        batch, count = tokens.shape[:2]
        positions = grid_positions(grid, tokens.device).repeat(batch, 1)
        rope = grid_rotation(grid, self.head_dim, tokens.device).repeat(batch, 1, 1)
        x = self._with_absolute_positions(tokens.flatten(0, 1), positions)
        where = None if self.local is None else grid_positions(grid).repeat(batch, 1).numpy()
        return self.arrange(x, rope, (count,) * batch, where)


def deep_supervision_strides(token_patch: Sequence[int]) -> list[list[int]]:
    """Return nnU-Net's ``strides`` for a token patch: [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    for 8.

    The deepest output of a list has weight 0 in nnU-Net's loss, so two halvings are the minimum.

    Raises:
        ValueError: a token patch below 4 voxels along every axis.
    """
    steps = halvings(token_patch)
    if len(steps) < 2:
        raise ValueError(f"a token patch of {tuple(token_patch)} leaves no level to supervise")
    return [[1, 1, 1], *([int(n) for n in step] for step in steps)]


def _evenly_spaced(depth: int, count: int) -> tuple[int, ...]:
    """Numbers of the blocks whose tokens are used, the last one included: (4, 8, 12, 16)."""
    return tuple(round(depth * (n + 1) / count) for n in range(count))
