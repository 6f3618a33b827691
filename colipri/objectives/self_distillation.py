"""Objective D: a student that sees parts of a scan predicts what its own average says of the whole.

Self-distillation without labels or reports: DINO on scans (arXiv 2104.14294) and iBOT on tokens
(arXiv 2111.07832), the recipe of DINOv2 (arXiv 2304.07193) on a list of body tokens. The teacher
(colipri.objectives.teacher) encodes the whole image; a head assigns its tokens, and their mean, to
prototypes. The student sees

* the visible tokens of the image: a small decoder predicts the assignment of each hidden token, and
  their mean that of the scan;
* smaller crops, each encoded by itself: their mean predicts that of the scan.

    L = mean over views H( p'(scan), p(view) ) + w mean over hidden H( p'(token), p(token) )
        + k KoLeo(visible tokens),     p' = softmax( (z' - centre) / t' ),   p = softmax( z / t )

Three things keep all features from becoming equal. Targets are sharpened (t' < t); they are centred
by a running mean over all cases of all processes, which changes after a step and not within it; and
KoLeo (arXiv 1806.03198) spreads the tokens of a case: it is computed within the case, so no loss
depends on how a batch is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.model import ColipriModel
from colipri.architectures.packing import to_device
from colipri.architectures.pooling import masked_mean
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.prototype_head import PrototypeHead, spread_loss
from colipri.architectures.rope import Grid, grid_positions
from colipri.architectures.tokens import select_tokens
from colipri.common.errors import ColipriError
from colipri.common.settings import SettingsError
from colipri.cost.flops import BACKWARD, image_flops, masked_decoder_flops
from colipri.cost.memory import stem_activation_bytes
from colipri.objectives.base import FinishedStep, HeadSizes, Objective, option
from colipri.objectives.batch import ImageInput
from colipri.objectives.masking import MASKS, MaskedTokens, draw_masks, mean_of_hidden
from colipri.objectives.teacher import BodyFeatures, Teacher, momentum_at
from colipri.plans.plans import Configuration

HEAD, DECODER = "distillation_head", "distillation_decoder"
TEACHER, CENTRES = "distillation_teacher", "distillation_centres"


class Centres(nn.Module):
    """Running means of what the teacher says of scans and of tokens, (P,) each.

    Args:
        prototypes: P.
    """

    scans: Tensor
    tokens: Tensor

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("scans", torch.zeros(prototypes))
        self.register_buffer("tokens", torch.zeros(prototypes))


@dataclass
class SelfDistillation(Objective):
    """Objective D."""

    letter = "D"
    name = "self_distillation"
    title = "Self-distillation"
    source = "DINO (arXiv 2104.14294), iBOT (arXiv 2111.07832), KoLeo as in DINOv2 (2304.07193)"
    head_names = (HEAD, DECODER, TEACHER, CENTRES)
    seed_name = "distilled"

    mask_ratio: float = option(
        0.5, "share of the body tokens that is hidden (iBOT: up to 0.5)", above=0.0, below=1.0
    )
    mask: str = option("block", "tokens by themselves, or cubes of them", choices=MASKS)
    block_size: int = option(3, "edge of a cube in tokens", low=1)
    crops: int = option(2, "smaller crops of each image that the student sees too", low=0)
    crop_size: float = option(
        0.5, "edge of a crop, as a share of the image's (as in FlexiCT)", above=0.0, below=1.0
    )
    prototypes: int = option(1024, "what tokens and scans are assigned to", low=2)
    momentum: float = option(
        0.996, "of the teacher at the start; 1 at the end (DINO)", low=0.0, below=1.0
    )
    temperature: float = option(0.1, "of the student (DINO)", above=0.0)
    teacher_temperature: float = option(0.04, "of the teacher; sharper (DINO)", above=0.0)
    centre_momentum: float = option(
        0.9, "share of the centres that a step keeps (DINO)", low=0.0, below=1.0
    )
    token_weight: float = option(1.0, "factor of the loss of hidden tokens (iBOT)", low=0.0)
    koleo: float = option(0.1, "factor of KoLeo over a case's tokens (DINOv2)", low=0.0)
    decoder_depth: int = option(2, "blocks of the decoder, as in M", low=1)

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            SettingsError: one is out of range, or the teacher is not sharper than the student.
        """
        super().__post_init__()
        if self.teacher_temperature >= self.temperature:
            raise SettingsError(
                "teacher_temperature",
                f"is {self.teacher_temperature} and the student's {self.temperature}: it must be "
                "lower, or all features become equal",
            )

    def heads(self, sizes: HeadSizes) -> dict[str, nn.Module]:
        """Build the head, the decoder of hidden tokens, the teacher and its running means."""
        dim = sizes.image_dim
        further = {"head": PrototypeHead(dim, self.prototypes)}
        return {
            HEAD: PrototypeHead(dim, self.prototypes),
            DECODER: MaskedDecoder(dim, dim, dim, self.decoder_depth, sizes.image_heads),
            TEACHER: Teacher(sizes.encoder, further),
            CENTRES: Centres(self.prototypes),
        }

    # ------------------------------------------------------------------ what steps change besides

    def before_first_step(self, model: ColipriModel, heads: Mapping[str, nn.Module]) -> None:
        """Start the teacher as a copy of encoder and head."""
        self._follow(model, heads, 0.0)

    def observed(self, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Sums over the cases of what the teacher says, and their number."""
        centres = cast(Centres, heads[CENTRES])
        return {
            "scans": torch.zeros_like(centres.scans),
            "tokens": torch.zeros_like(centres.tokens),
            "cases": torch.zeros_like(centres.scans[0]),
        }

    def after_step(self, step: FinishedStep) -> None:
        """Let the teacher follow encoder and head, and the centres the teacher."""
        self._follow(step.model, step.heads, momentum_at(self.momentum, step.number, step.total))
        cases = step.observed["cases"].clamp(min=1)
        for name, centre in step.heads[CENTRES].named_buffers():
            centre.lerp_(step.observed[name] / cases, 1.0 - self.centre_momentum)

    def _follow(self, model: ColipriModel, heads: Mapping[str, nn.Module], momentum: float) -> None:
        students = {"image_encoder": model.image_encoder, "head": heads[HEAD]}
        cast(Teacher, heads[TEACHER]).follow(students, momentum)

    # ------------------------------------------------------------------ loss

    def image_losses(self, inputs: ImageInput) -> Tensor:
        """(b,) float32: scans, hidden tokens and KoLeo."""
        encoder, image, body = cast(PrimusEncoder, inputs.encoder), inputs.image, inputs.body.cpu()
        head = cast(PrototypeHead, inputs.heads[HEAD])
        grid = encoder.grid(image.shape[2:])
        seeds = inputs.part.row_seeds("mask")
        masks = draw_masks(body, grid, self.mask_ratio, self.mask, self.block_size, seeds)
        of_scan, of_tokens = self.targets(inputs, body, masks)
        visible = encoder(image, masks.visible, masks.visible_mask)
        seen = None
        if masks.visible_mask is not None:
            seen = to_device(masks.visible_mask, image.device)
        views = [masked_mean(visible, seen), *self.crop_means(inputs, body, grid)]
        losses = torch.stack([self.cross_entropy(of_scan, head(view)) for view in views]).mean(0)
        predicted = self.predict(inputs, visible, masks, grid)
        by_token = self.cross_entropy(of_tokens, head(predicted))
        losses = losses + self.token_weight * mean_of_hidden(by_token, masks)
        return losses + self.koleo * spread_loss(head, visible, masks.visible_mask)

    @torch.no_grad()
    def targets(
        self, inputs: ImageInput, body: Tensor, masks: MaskedTokens
    ) -> tuple[Tensor, Tensor]:
        """Assign scans (b, P) and hidden tokens (b, M, P) to prototypes, and observe the means.

        Args:
            inputs: the cases.
            body: (b, N) bool on the CPU.
            masks: which tokens are hidden.
        """
        teacher, centres = (
            cast(Teacher, inputs.heads[TEACHER]),
            cast(Centres, inputs.heads[CENTRES]),
        )
        features = BodyFeatures(teacher, inputs.image, body)
        kept = None if features.mask is None else to_device(features.mask, inputs.image.device)
        head = cast(PrototypeHead, teacher.get_submodule("head"))
        scans = head(masked_mean(features.tokens, kept))
        tokens = head(features.of(masks.masked))
        if inputs.observed:
            inputs.observed["scans"] += scans.sum(dim=0)
            inputs.observed["tokens"] += mean_of_hidden(tokens, masks).sum(dim=0)
            inputs.observed["cases"] += len(scans)
        return (
            ((scans - centres.scans) / self.teacher_temperature).softmax(dim=-1),
            ((tokens - centres.tokens) / self.teacher_temperature).softmax(dim=-1),
        )

    def predict(
        self, inputs: ImageInput, visible: Tensor, masks: MaskedTokens, grid: Grid
    ) -> Tensor:
        """Predict the features of hidden tokens, (b, M, D).

        Args:
            inputs: the cases.
            visible: (b, K, D), the student's features of visible tokens.
            masks: which tokens these are.
            grid: of tokens.
        """
        positions = grid_positions(grid, visible.device)
        decoder = cast(MaskedDecoder, inputs.heads[DECODER])
        predicted: Tensor = decoder(
            visible,
            positions[to_device(masks.visible, visible.device)],
            positions[to_device(masks.masked, visible.device)],
            masks.visible_mask,
            None if bool(masks.masked_mask.all()) else masks.masked_mask,
        )
        return predicted

    def crop_means(self, inputs: ImageInput, body: Tensor, grid: Grid) -> list[Tensor]:
        """Encode smaller crops by themselves; the mean token of each, (b, D).

        Args:
            inputs: the cases.
            body: (b, N) bool on the CPU.
            grid: of tokens.

        Raises:
            ColipriError: the image is a single token.
        """
        found = []
        for number in range(self.crops):
            seeds = inputs.part.row_seeds(f"crop {number}")
            image, inside = draw_crops(inputs.image, body, grid, self.crop_size, seeds)
            kept, mask = select_tokens(inside)
            tokens = inputs.encoder(image, kept, mask)
            found.append(
                masked_mean(tokens, None if mask is None else to_device(mask, tokens.device))
            )
        return found

    def cross_entropy(self, target: Tensor, logits: Tensor) -> Tensor:
        """(..., P) distributions and cosines -> (...)."""
        return -(target * (logits / self.temperature).log_softmax(dim=-1)).sum(dim=-1)

    # ------------------------------------------------------------------ cost

    def flops(self, configuration: Configuration, num_tokens: float) -> float:
        """Count teacher, student on visible tokens and crops, decoder and heads."""
        encoder, size = configuration.encoder, configuration.patch_size
        hidden = self.mask_ratio * num_tokens
        visible, width = num_tokens - hidden, encoder.embed_dim
        grid = [n // p for n, p in zip(size, configuration.token_patch_size, strict=True)]
        edges = crop_edges(grid, self.crop_size)
        voxels = [n * p for n, p in zip(edges, configuration.token_patch_size, strict=True)]
        share = prod(edges) / prod(grid)
        crop = image_flops(encoder, voxels, share * num_tokens, training=True)
        student = image_flops(encoder, size, visible, training=True) + self.crops * crop
        decoder = masked_decoder_flops(visible, hidden, width, width, width, self.decoder_depth)
        heads = PrototypeHead.flops(width, self.prototypes) * hidden * (1 + BACKWARD)
        return image_flops(encoder, size, num_tokens) + student + BACKWARD * decoder + heads

    def activation_bytes(self, configuration: Configuration, precision: str) -> float:
        """Count what is kept beyond the pass of a pair: stems of crops, and assignments.

        The student's tokens, half of the body and two crops of an eighth, are fewer than a pair's.
        """
        encoder, patch = configuration.encoder, configuration.token_patch_size
        grid = [n // p for n, p in zip(configuration.patch_size, patch, strict=True)]
        crop = prod(crop_edges(grid, self.crop_size)) * prod(patch)
        stem = stem_activation_bytes(
            encoder.stem,
            encoder.stem_options,
            crop,
            precision,
            encoder.input_channels,
            encoder.embed_dim,
            patch,
        )
        hidden = self.mask_ratio * configuration.num_tokens
        return self.crops * stem + hidden * PrototypeHead.kept_bytes(self.prototypes)

    def head_flops(
        self, name: str, head: nn.Module, inputs: Sequence[Any], output: Tensor
    ) -> float:
        """Count forward FLOPs of teacher, decoder and head for the tokens that go in and come out.

        Args:
            name: attribute of the model that holds the head.
            head: the module.
            inputs: its positional arguments.
            output: what it returned.
        """
        if isinstance(head, Teacher):
            return head.flops(inputs[0], output)
        if isinstance(head, MaskedDecoder):
            width = output.shape[2]
            return masked_decoder_flops(
                inputs[0].shape[1], output.shape[1], width, width, width, len(head.eva.blocks)
            )
        return super().head_flops(name, head, inputs, output)


def crop_edges(grid: Sequence[int], share: float) -> list[int]:
    """Tokens of a crop per axis; two at least where the image has them, for the stems' norms."""
    return [max(min(2, size), round(share * size)) for size in grid]


def draw_crops(
    image: Tensor, body: Tensor, grid: Grid, share: float, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Cut a random box of tokens out of each image, around a random body token.

    Args:
        image: (b, C, A0, A1, A2).
        body: (b, N) bool on the CPU; every image has at least one.
        grid: of tokens.
        share: edge of a box, as a share of the image's.
        seeds: b seeds, so that a crop does not depend on its micro batch.

    Returns:
        The crops (b, C, a0, a1, a2), and their body tokens (b, n) on the CPU.

    Raises:
        ColipriError: the image is a single token.
    """
    if prod(grid) == 1:
        raise ColipriError(
            "objective 'self_distillation': the image is a single token, which has no smaller crop;"
            " set objectives.D.crops=0 or a larger patch_size"
        )
    edges = crop_edges(grid, share)
    patch = [size // count for size, count in zip(image.shape[2:], grid, strict=True)]
    images, inside = [], []
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        places = body[row].view(*grid).nonzero()
        centre = places[int(torch.randint(len(places), (), generator=generator))].tolist()
        starts = [
            min(max(0, at - int(torch.randint(edge, (), generator=generator))), size - edge)
            for at, edge, size in zip(centre, edges, grid, strict=True)
        ]
        box = [slice(at, at + edge) for at, edge in zip(starts, edges, strict=True)]
        voxels = [slice(x.start * p, x.stop * p) for x, p in zip(box, patch, strict=True)]
        a, b, c = voxels
        images.append(image[row, :, a, b, c])
        inside.append(body[row].view(*grid)[tuple(box)].flatten())
    return torch.stack(images), torch.stack(inside)
