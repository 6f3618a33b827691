"""Objective M: the encoder sees a quarter of the body's tokens, a small decoder predicts the rest.

Masked autoencoders (He et al., CVPR 2022, arXiv 2111.06377) on a list of tokens: the encoder
computes with visible tokens only, and air is neither seen nor predicted. It needs no report.

What is predicted (``target``) and how tokens are hidden depend on the stem:

* ``plain`` and ``normalised``: the voxels of hidden patches, which are overwritten with air before
  a convolutional stem: it looks beyond its token, and would otherwise show the encoder what it has
  to predict. But then visible tokens become something that no other objective and no user sees.
* ``features``: the stem sees the whole image, tokens are hidden behind it (as wav2vec 2.0 and
  data2vec hide behind theirs, arXiv 2202.03555), and the features of hidden tokens are predicted
  as a teacher computes them from the whole image (colipri.objectives.teacher). Visible tokens are
  what they always are, and what a stem shows of its neighbours does not give the answer away.

``auto`` takes voxels with a linear stem, which never looks beyond a token, and features otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.model import ColipriModel
from colipri.architectures.packing import to_device
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.stems import LinearStem
from colipri.architectures.tokens import fill_patches, patch_rows
from colipri.cost.flops import BACKWARD, image_flops, masked_decoder_flops
from colipri.objectives.base import FinishedStep, HeadSizes, Objective, PagePart, option
from colipri.objectives.batch import ImageInput
from colipri.objectives.masking import MASKS, MaskedTokens, draw_masks, mean_of_hidden
from colipri.objectives.reconstructions import (
    Reconstruction,
    feature_reconstruction,
    page_part,
    voxel_reconstruction,
)
from colipri.objectives.teacher import (
    BodyFeatures,
    Teacher,
    momentum_at,
    normalized_features,
)
from colipri.plans.plans import Configuration

DECODER, TEACHER = "masked_decoder", "masked_teacher"
AUTO, PLAIN, NORMALISED, FEATURES = TARGETS = ("auto", "plain", "normalised", "features")
_EPSILON = 1e-6  # of a patch's variance, in normalized units


@dataclass
class MaskedImageModelling(Objective):
    """Objective M; mask, decoder and plain target are nnssl's."""

    letter = "M"
    name = "masked_image_modelling"
    title = "Masked image modelling"
    source = (
        "MAE (arXiv 2111.06377) on body tokens; ratio, depth and voxel target as in nnssl; "
        "features as in I-JEPA (arXiv 2301.08243)"
    )
    head_names = (DECODER, TEACHER)
    seed_name = "masked"
    planned = {"target": AUTO}  # noqa: RUF012

    mask_ratio: float = option(
        0.75, "share of the body tokens that is hidden", above=0.0, below=1.0
    )
    mask: str = option("random", "tokens by themselves, or cubes of them", choices=MASKS)
    block_size: int = option(3, "edge of a cube in tokens", low=1)
    target: str = option(
        PLAIN,
        "voxels (plain), each patch by its own mean and deviation (normalised), features of a "
        "teacher, or by the stem (auto: linear plain, others features)",
        choices=TARGETS,
    )
    momentum: float = option(
        0.996, "of the teacher at the start; 1 at the end (I-JEPA)", low=0.0, below=1.0
    )
    decoder_depth: int = option(2, "blocks of the decoder", low=1)

    def target_of(self, stem: str) -> str:
        """Return what is predicted behind this stem: ``target``, decided where it is ``auto``."""
        if self.target != AUTO:
            return self.target
        return PLAIN if stem == "linear" else FEATURES

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the decoder, as wide as the image encoder, and the teacher if there is one."""
        dim = sizes.image_dim
        features = self.target_of(sizes.encoder.stem) == FEATURES
        width = dim if features else sizes.patch_voxels
        decoder = MaskedDecoder(dim, width, dim, self.decoder_depth, sizes.image_heads)
        return {DECODER: decoder} | ({TEACHER: Teacher(sizes.encoder, {})} if features else {})

    def before_first_step(self, model: ColipriModel, heads: Mapping[str, nn.Module]) -> None:
        """Start the teacher as a copy of the encoder."""
        if TEACHER in heads:
            cast(Teacher, heads[TEACHER]).follow({"image_encoder": model.image_encoder}, 0.0)

    def after_step(self, step: FinishedStep) -> None:
        """Let the teacher follow the encoder."""
        if TEACHER in step.heads:
            momentum = momentum_at(self.momentum, step.number, step.total)
            students = {"image_encoder": step.model.image_encoder}
            cast(Teacher, step.heads[TEACHER]).follow(students, momentum)

    def image_losses(self, inputs: ImageInput) -> Tensor:
        """(b,) float32: the mean error over the hidden tokens; 0 with one body token."""
        decoder = cast(MaskedDecoder, inputs.heads[DECODER])
        teacher = cast("Teacher | None", inputs.heads.get(TEACHER))
        seeds = inputs.part.row_seeds("mask")
        return self.losses(
            inputs.encoder, decoder, inputs.image, inputs.body, seeds, inputs.air, teacher
        )

    def losses(
        self,
        encoder: PrimusEncoder,
        decoder: MaskedDecoder,
        image: Tensor,
        body: Tensor,
        seeds: list[int],
        air: float,
        teacher: Teacher | None = None,
    ) -> Tensor:
        """Loss of each case: the mean error over its hidden tokens.

        Args:
            encoder, decoder: on the device of the image.
            image: (B, C, A0, A1, A2), normalized.
            body: (B, N) bool in token order.
            seeds: B seeds of the masks.
            air: normalized intensity that hidden voxels are overwritten with.
            teacher: whose features are predicted; None where voxels are.

        Returns:
            (B,) float32; 0 for a case with a single body token.
        """
        masks = self.draw_masks(encoder, image, body, seeds)
        predicted = self.predict(encoder, decoder, image, masks, None if teacher else air)
        if teacher is None:
            return self.error(predicted, image, masks, encoder.patch_embed_size)
        targets = normalized_features(BodyFeatures(teacher, image, body).of(masks.masked))
        by_token = F.smooth_l1_loss(predicted.float(), targets, reduction="none").mean(dim=2)
        return mean_of_hidden(by_token, masks)

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
        air: float | None,
    ) -> Tensor:
        """Predict the M hidden tokens from the visible ones: (B, M, V), V voxels or features.

        Args:
            encoder: of the images.
            decoder: the head.
            image: (B, C, A0, A1, A2), normalized.
            masks: which tokens are visible and which are predicted.
            air: normalized intensity of air, in the place of hidden voxels; None shows them to the
                stem, behind which their tokens are hidden.
        """
        seen = image
        # a linear stem never looks beyond a token
        if air is not None and not isinstance(encoder.down_projection, LinearStem):
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
        return mean_of_hidden((predicted.float() - target).square().mean(dim=2), masks)

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
        if self.target != NORMALISED:
            return chosen
        mean = chosen.mean(dim=2, keepdim=True)
        variance = chosen.var(dim=2, keepdim=True, unbiased=False)
        return (chosen - mean) * torch.rsqrt(variance + _EPSILON)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count the encoder on the visible tokens and the decoder on all, forward and backward; of
        features also the teacher, forward.
        """
        encoder = configuration.encoder
        features = self.target_of(encoder.stem) == FEATURES
        voxels = encoder.input_channels * prod(configuration.token_patch_size)
        visible, masked = (1 - self.mask_ratio) * num_tokens, self.mask_ratio * num_tokens
        on_visible = image_flops(encoder, configuration.patch_size, visible, training=True)
        taught = image_flops(encoder, configuration.patch_size, num_tokens) if features else 0.0
        return (
            taught
            + on_visible
            + BACKWARD
            * masked_decoder_flops(
                visible,
                masked,
                encoder.embed_dim,
                encoder.embed_dim if features else voxels,
                encoder.embed_dim,
                self.decoder_depth,
            )
        )

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of decoder and teacher for the tokens that go in and come out.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        if isinstance(head, Teacher):
            return head.flops(inputs[0], output)
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
        """Explain what is hidden, and how predictions that are not voxels are shown."""
        text = f"{100 * self.mask_ratio:.0f} % of the body's tokens are hidden ({self.mask} mask)."
        if self.target == NORMALISED:
            text += (
                " The model predicts each token normalized by its own mean and standard deviation; "
                "for these pictures the prediction is un-normalized with the true token's, so "
                "brightness and contrast of a token are given, and only its pattern is the model's."
            )
        if self.target in (AUTO, FEATURES):
            text += (
                " Where features are predicted and not voxels (convolutional stems), the pictures "
                "show the direction in which the teacher's features of this scan differ most "
                "(first principal component); their grey values have no unit."
            )
        return text

    def page_parts(self, inputs: ImageInput, names: Sequence[str]) -> list[PagePart]:
        """Image, visible tokens and reconstruction of each case."""
        return [page_part(found) for found in self.reconstruct(inputs, names)]

    @torch.inference_mode()
    def reconstruct(self, inputs: ImageInput, names: Sequence[str]) -> list[Reconstruction]:
        """Hide a share of the body tokens of each case and predict them."""
        decoder = cast(MaskedDecoder, inputs.heads[DECODER])
        teacher = cast("Teacher | None", inputs.heads.get(TEACHER))
        encoder, image, body = inputs.encoder, inputs.image, inputs.body
        seeds = inputs.part.row_seeds("mask")
        found = []
        for row, name in enumerate(names):
            one, tokens = image[row : row + 1], body[row : row + 1]
            masks = self.draw_masks(encoder, one, tokens, seeds[row : row + 1])
            air = None if teacher else inputs.air
            told = self.predict(encoder, decoder, one, masks, air).float()
            given = (name, one, tokens.cpu(), masks, told[0], encoder)
            if teacher is None:
                found.append(voxel_reconstruction(*given, self.target == NORMALISED))
            else:
                found.append(feature_reconstruction(*given, teacher))
        return found
