"""Objective M: the encoder sees a quarter of the body's tokens, a small decoder predicts the rest.

Masked autoencoders (He et al., CVPR 2022, arXiv 2111.06377) on a list of tokens: the encoder
computes with visible tokens only, air is neither seen nor predicted, and the loss is the mean
squared error over the voxels of hidden patches. It needs no report.

Voxels of hidden patches are overwritten with air before the stem: a convolutional stem looks beyond
its token, and would otherwise show the encoder what it has to predict.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.tokens import fill_patches, patchify
from colipri.objectives.masking import MASKS, MaskedTokens, draw_masks

TARGETS = ("plain", "normalised")
_EPSILON = 1e-6  # of a patch's variance, in normalised units


class MaskedImageModellingObjective:
    """Objective M, case by case.

    Args:
        mask_ratio: share of the body tokens that is hidden.
        mask: "random" or "block".
        block_size: edge of a block in tokens.
        target: "plain" voxels, or each patch "normalised" by its own mean and standard deviation.
        decoder_depth: blocks of the decoder.
    """

    name = "masked_image_modelling"

    def __init__(
        self,
        mask_ratio: float = 0.75,
        mask: str = "random",
        block_size: int = 3,
        target: str = "plain",
        decoder_depth: int = 2,
    ) -> None:
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"mask_ratio must be between 0 and 1, not {mask_ratio}")
        if mask not in MASKS:
            raise ValueError(f"unknown mask '{mask}'; known: {', '.join(MASKS)}")
        if target not in TARGETS:
            raise ValueError(f"unknown target '{target}'; known: {', '.join(TARGETS)}")
        if block_size < 1 or decoder_depth < 1:
            raise ValueError("block_size and decoder_depth must be at least 1")
        self.mask_ratio = mask_ratio
        self.mask = mask
        self.block_size = block_size
        self.target = target
        self.decoder_depth = decoder_depth

    def __call__(
        self,
        encoder: PrimusEncoder,
        decoder: MaskedDecoder,
        image: Tensor,
        body: Tensor,
        seeds: list[int],
        air: float,
    ) -> Tensor:
        """Loss of each case: the mean squared error over its hidden voxels.

        Args:
            encoder, decoder: on the device of the image.
            image: (B, C, A0, A1, A2), normalised.
            body: (B, N) bool in token order.
            seeds: B seeds of the masks.
            air: normalised intensity that hidden voxels are overwritten with.

        Returns:
            (B,) float32; 0 for a case with a single body token.
        """
        masks = self.draw(encoder, image, body, seeds)
        predicted = self.predict(encoder, decoder, image, masks, air)
        return self.error(predicted, image, masks, encoder.patch_embed_size)

    def draw(
        self, encoder: PrimusEncoder, image: Tensor, body: Tensor, seeds: list[int]
    ) -> MaskedTokens:
        """Which tokens are visible and which are predicted."""
        grid = encoder.grid(image.shape[2:])
        return draw_masks(body, grid, self.mask_ratio, self.mask, self.block_size, seeds)

    def predict(
        self,
        encoder: PrimusEncoder,
        decoder: MaskedDecoder,
        image: Tensor,
        masks: MaskedTokens,
        air: float,
    ) -> Tensor:
        """(B, M, V): what the decoder makes of the visible tokens."""
        seen = fill_patches(image, masks.hidden, encoder.patch_embed_size, air)
        tokens = encoder(seen, masks.visible, masks.visible_mask)
        positions = grid_positions(encoder.grid(image.shape[2:]), image.device)
        masked_mask = None if bool(masks.masked_mask.all()) else masks.masked_mask
        return decoder(
            tokens,
            positions[masks.visible],
            positions[masks.masked],
            masks.visible_mask,
            masked_mask,
        )

    def error(
        self, predicted: Tensor, image: Tensor, masks: MaskedTokens, patch: tuple[int, ...]
    ) -> Tensor:
        """(B,): mean squared error over the hidden voxels of each case, in float32."""
        target = self.targets(image, masks, patch)
        by_patch = (predicted.float() - target).square().mean(dim=2)
        weight = masks.masked_mask.float()
        return (by_patch * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def targets(self, image: Tensor, masks: MaskedTokens, patch: tuple[int, ...]) -> Tensor:
        """(B, M, V) float32: the hidden patches, as they are to be predicted."""
        patches = patchify(image, patch)
        index = masks.masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
        chosen = patches.gather(1, index).float()
        if self.target == "plain":
            return chosen
        mean = chosen.mean(dim=2, keepdim=True)
        variance = chosen.var(dim=2, keepdim=True, unbiased=False)
        return (chosen - mean) * torch.rsqrt(variance + _EPSILON)
