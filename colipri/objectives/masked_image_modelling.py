"""Objective M: the encoder sees a quarter of the body's tokens, a small decoder predicts the rest.

Masked autoencoders (He et al., CVPR 2022, arXiv 2111.06377) on a list of tokens: the encoder
computes with visible tokens only, air is neither seen nor predicted, and the loss is the mean
squared error over the voxels of hidden patches. It needs no report.

Voxels of hidden patches are overwritten with air before the stem: a convolutional stem looks beyond
its token, and would otherwise show the encoder what it has to predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.packing import to_device
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.stems import LinearStem
from colipri.architectures.tokens import fill_patches, patch_rows, patchify, unpatchify
from colipri.cost.flops import BACKWARD, image_flops, masked_decoder_flops
from colipri.objectives.base import HeadSizes, Objective, PagePart, ShownVolume, option
from colipri.objectives.batch import ImageInput
from colipri.objectives.masking import MASKS, MaskedTokens, draw_masks
from colipri.plans.plans import Configuration

DECODER = "masked_decoder"
TARGETS = ("plain", "normalised")
_EPSILON = 1e-6  # of a patch's variance, in normalized units


@dataclass(frozen=True)
class Reconstruction:
    """One case, in the encoder's (normalized) intensities; axes superior, anterior, right.

    Attributes:
        name: of the case.
        image: (C, A0, A1, A2) float32.
        predicted: the same, with the hidden tokens as the decoder predicts them.
        hidden: (A0, A1, A2) bool: voxels of hidden tokens.
        air: (A0, A1, A2) bool: voxels of tokens that are neither seen nor predicted.
        error: mean squared error over the hidden voxels.
        control_error: the same, of filling every hidden token with one number: the mean of the
            visible ones, or, where the target is normalized, the token's own mean.
    """

    name: str
    image: np.ndarray
    predicted: np.ndarray
    hidden: np.ndarray
    air: np.ndarray
    error: float
    control_error: float


@dataclass
class MaskedImageModelling(Objective):
    """Objective M; mask, decoder and target are nnssl's."""

    letter = "M"
    name = "masked_image_modelling"
    title = "Masked image modelling"
    source = "MAE (arXiv 2111.06377) on body tokens; ratio, depth and target as in nnssl"
    head_names = (DECODER,)
    seed_name = "masked"

    mask_ratio: float = option(
        0.75, "share of the body tokens that is hidden", above=0.0, below=1.0
    )
    mask: str = option("random", "tokens by themselves, or cubes of them", choices=MASKS)
    block_size: int = option(3, "edge of a cube in tokens", low=1)
    target: str = option(
        "plain", "voxels, or each patch by its own mean and deviation", choices=TARGETS
    )
    decoder_depth: int = option(2, "blocks of the decoder", low=1)

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the decoder, as wide as the image encoder."""
        dim = sizes.image_dim
        decoder = MaskedDecoder(dim, sizes.patch_voxels, dim, self.decoder_depth, sizes.image_heads)
        return {DECODER: decoder}

    def image_losses(self, inputs: ImageInput) -> Tensor:
        """(b,) float32: the mean squared error over the hidden voxels; 0 with one body token."""
        decoder = cast(MaskedDecoder, inputs.heads[DECODER])
        seeds = inputs.part.row_seeds("mask")
        return self.losses(inputs.encoder, decoder, inputs.image, inputs.body, seeds, inputs.air)

    def losses(
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
            image: (B, C, A0, A1, A2), normalized.
            body: (B, N) bool in token order.
            seeds: B seeds of the masks.
            air: normalized intensity that hidden voxels are overwritten with.

        Returns:
            (B,) float32; 0 for a case with a single body token.
        """
        masks = self.draw_masks(encoder, image, body, seeds)
        predicted = self.predict(encoder, decoder, image, masks, air)
        return self.error(predicted, image, masks, encoder.patch_embed_size)

    def draw_masks(
        self, encoder: PrimusEncoder, image: Tensor, body: Tensor, seeds: list[int]
    ) -> MaskedTokens:
        """Draw which tokens are visible and which are predicted.

        Args:
            encoder: gives the grid of tokens.
            image: (B, C, A0, A1, A2), normalized.
            body: (B, N) bool, True at tokens that hold body; best on the CPU, where it is read.
            seeds: B, one per case.
        """
        grid = encoder.grid(image.shape[2:])
        return draw_masks(body.cpu(), grid, self.mask_ratio, self.mask, self.block_size, seeds)

    def predict(
        self,
        encoder: PrimusEncoder,
        decoder: MaskedDecoder,
        image: Tensor,
        masks: MaskedTokens,
        air: float,
    ) -> Tensor:
        """Predict the M hidden tokens from the visible ones: (B, M, V), V voxels of a token.

        Args:
            encoder: of the images.
            decoder: the head.
            image: (B, C, A0, A1, A2), normalized.
            masks: which tokens are visible and which are predicted.
            air: normalized intensity of air, in the place of hidden voxels.
        """
        seen = image
        if not isinstance(encoder.down_projection, LinearStem):  # which never looks beyond a token
            hidden = to_device(masks.hidden, image.device)
            seen = fill_patches(image, hidden, encoder.patch_embed_size, air)
        tokens = encoder(seen, masks.visible, masks.visible_mask)
        positions = grid_positions(encoder.grid(image.shape[2:]), image.device)
        return decoder(
            tokens,
            positions[to_device(masks.visible, image.device)],
            positions[to_device(masks.masked, image.device)],
            masks.visible_mask,
            None if masks.masked_mask.numpy().all() else masks.masked_mask,
        )

    def error(
        self, predicted: Tensor, image: Tensor, masks: MaskedTokens, patch: tuple[int, ...]
    ) -> Tensor:
        """Return the mean squared error over the hidden voxels of each case, (B,) float32.

        Args:
            predicted: (B, M, V), V voxels of M hidden tokens.
            image: (B, C, A0, A1, A2), normalized.
            masks: which tokens are predicted.
            patch: voxels of a token per axis.
        """
        target = self.targets(image, masks, patch)
        by_patch = (predicted.float() - target).square().mean(dim=2)
        weight = to_device(masks.masked_mask, image.device).float()
        return (by_patch * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def targets(self, image: Tensor, masks: MaskedTokens, patch: tuple[int, ...]) -> Tensor:
        """Return the hidden patches as they are to be predicted, (B, M, V) float32.

        Args:
            image: (B, C, A0, A1, A2), normalized.
            masks: which tokens are predicted.
            patch: voxels of a token per axis.
        """
        kept = to_device(masks.masked, image.device)
        sample = torch.arange(len(kept), device=image.device).repeat_interleave(kept.shape[1])
        chosen = patch_rows(image, patch, sample, kept.flatten()).float()
        chosen = chosen.unflatten(0, kept.shape)
        if self.target == "plain":
            return chosen
        mean = chosen.mean(dim=2, keepdim=True)
        variance = chosen.var(dim=2, keepdim=True, unbiased=False)
        return (chosen - mean) * torch.rsqrt(variance + _EPSILON)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count the encoder on the visible tokens and the decoder on all; forward and backward."""
        encoder = configuration.encoder
        visible, masked = (1 - self.mask_ratio) * num_tokens, self.mask_ratio * num_tokens
        on_visible = image_flops(encoder, configuration.patch_size, visible, training=True)
        return on_visible + BACKWARD * masked_decoder_flops(
            visible,
            masked,
            encoder.embed_dim,
            encoder.input_channels * prod(configuration.token_patch_size),
            encoder.embed_dim,
            self.decoder_depth,
        )

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of the decoder for the tokens that go in and come out.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        decoder, tokens = cast(MaskedDecoder, head), inputs[0]
        return masked_decoder_flops(
            tokens.shape[1],
            output.shape[1],
            tokens.shape[2],
            output.shape[2],
            decoder.embed.out_features,
            len(decoder.eva.blocks),
        )

    # ------------------------------------------------------------------ what people see

    page_title = "Reconstructions"

    def page_key(self) -> str:
        """Explain the colours."""
        return (
            "Visible: what the encoder sees; hidden tokens are grey, those of air are dark blue "
            "and neither seen nor predicted. Reconstruction: hidden tokens as the decoder predicts "
            "them, visible ones as they are."
        )

    def page_text(self) -> str:
        """Explain what is hidden, and how predictions of normalized tokens are shown."""
        text = f"{100 * self.mask_ratio:.0f} % of the body's tokens are hidden ({self.mask} mask)."
        if self.target == "normalised":
            text += (
                " The model predicts each token normalized by its own mean and standard deviation; "
                "for these pictures the prediction is un-normalized with the true token's, so "
                "brightness and contrast of a token are given, and only its pattern is the model's."
            )
        return text

    def page_parts(self, inputs: ImageInput, names: Sequence[str]) -> list[PagePart]:
        """Image, visible tokens and reconstruction of each case."""
        return self.parts_of(self.reconstruct(inputs, names))

    def parts_of(self, reconstructions: Sequence[Reconstruction]) -> list[PagePart]:
        """Three volumes and the error of each reconstruction."""
        parts = []
        for found in reconstructions:
            air = {"air": found.air}
            volumes = (
                ShownVolume("Scan", found.image[0]),
                ShownVolume("Visible", found.image[0], {"hidden": found.hidden, **air}),
                ShownVolume("Reconstruction", found.predicted[0], air),
            )
            reference = (
                "each token's own mean" if self.target == "normalised" else "the visible mean"
            )
            note = (
                f"mean squared error of hidden voxels {found.error:.3g} in normalized intensities "
                f"({found.control_error:.3g} if they were all {reference})"
            )
            parts.append(PagePart(found.name, note, volumes))
        return parts

    @torch.inference_mode()
    def reconstruct(self, inputs: ImageInput, names: Sequence[str]) -> list[Reconstruction]:
        """Hide a share of the body tokens of each case and predict them.

        A prediction of normalized tokens is converted back with mean and deviation of the true
        ones: the model says how a token looks, not how bright it is.
        """
        decoder = cast(MaskedDecoder, inputs.heads[DECODER])
        encoder, image, body = inputs.encoder, inputs.image, inputs.body
        seeds = inputs.part.row_seeds("mask")
        found = []
        for row, name in enumerate(names):
            one, tokens = image[row : row + 1], body[row : row + 1]
            masks = self.draw_masks(encoder, one, tokens, seeds[row : row + 1])
            voxels = self.predict(encoder, decoder, one, masks, inputs.air).float()
            found.append(self._put_back(name, one, tokens, masks, voxels, encoder))
        return found

    def _put_back(
        self,
        name: str,
        image: Tensor,
        body: Tensor,
        masks: MaskedTokens,
        voxels: Tensor,
        encoder: PrimusEncoder,
    ) -> Reconstruction:
        patch = encoder.patch_embed_size
        grid = encoder.grid(image.shape[2:])
        body = body.to(image.device)
        true = patchify(image, patch)
        hidden = masks.hidden[0].to(image.device)
        wanted = true[0, hidden]
        told = voxels[0][masks.masked_mask[0].to(image.device)]
        if self.target == "normalised":
            mean = wanted.mean(dim=1, keepdim=True)
            told = told * wanted.std(dim=1, keepdim=True, unbiased=False) + mean
            control = mean
        else:
            control = true[0, body[0] & ~hidden].mean()
        patches = true.clone()
        patches[0, hidden] = told

        def voxel_mask(tokens: Tensor) -> np.ndarray:
            filled = tokens[None, :, None].float().expand_as(true)
            mask: np.ndarray = unpatchify(filled, grid, patch)[0, 0].bool().cpu().numpy()
            return mask

        return Reconstruction(
            name,
            image[0].float().cpu().numpy(),
            unpatchify(patches, grid, patch)[0].float().cpu().numpy(),
            voxel_mask(hidden),
            voxel_mask(~body[0]),
            float((told - wanted).square().mean()),
            float((control - wanted).square().mean()),
        )
