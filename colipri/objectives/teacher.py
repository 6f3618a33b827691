"""A teacher: an average of the image encoder over the steps so far, whose features are targets.

An exponential moving average of the student predicts better than the student itself and changes
slowly, so what it says of a whole image is a target for a student that sees only a part of it (mean
teacher, arXiv 1703.01780; BYOL, arXiv 2006.07733; data2vec, arXiv 2202.03555). Masked image
modelling and self-distillation share this file.

A teacher is a head like any other: checkpoints save it, resumed runs continue with it, exports drop
it. Its parameters are frozen, so the optimizer does not know them, and it never drops anything at
random. Every process follows the same student, so all teachers are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.packing import to_device
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.tokens import select_tokens
from colipri.common.sharded_tensors import gathered, is_sharded, local_part, own_rows
from colipri.cost.flops import image_flops
from colipri.plans.architecture import EncoderSettings


class Teacher(nn.Module):
    """A frozen copy of the image encoder, and of further modules, that follows the trained ones.

    Args:
        settings: of the image encoder.
        further: modules that are averaged too, by name.
    """

    def __init__(self, settings: EncoderSettings, further: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.settings = replace(settings, drop_path_rate=0.0, activation_checkpointing="none")
        self.image_encoder = PrimusEncoder(**self.settings.to_dict())
        for name, module in further.items():
            self.add_module(name, module)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    def sharded_units(self) -> Iterator[nn.Module]:
        """Yield what is gathered at a time where weights are sharded; further modules stay whole.

        They are also called by themselves.
        """
        yield from self.image_encoder.sharded_units()

    @torch.no_grad()
    def forward(
        self, image: Tensor, ids_keep: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Encode images without gradients: (B, K, D).

        Args:
            image: (B, C, A0, A1, A2), normalized.
            ids_keep, attention_mask: see PrimusEncoder.forward.
        """
        tokens: Tensor = self.image_encoder(image, ids_keep, attention_mask)
        return tokens

    @torch.no_grad()
    def follow(self, students: Mapping[str, nn.Module], momentum: float) -> None:
        """Move the weights towards those of the students.

        Args:
            students: name of a part -> the trained module that it follows. Of sharded modules the
                weights are gathered one after the other, so all processes must call this.
            momentum: what the teacher keeps of its own weights, 0 (copy) to 1 (stay).
        """
        for part, student in students.items():
            weights = dict(student.named_parameters())
            for name, own in self.get_submodule(part).named_parameters():
                if not is_sharded(own):
                    own.lerp_(gathered(weights[name].detach()), 1.0 - momentum)
                else:  # cut as its student is
                    local_part(own).lerp_(own_rows(weights[name].detach(), own), 1.0 - momentum)

    def flops(self, image: Tensor, output: Tensor) -> float:
        """Count forward FLOPs of one sample.

        Args:
            image: (B, C, A0, A1, A2), what went in.
            output: (B, K, D), what came out.
        """
        return image_flops(self.settings, tuple(image.shape[2:]), output.shape[1])


def momentum_at(start: float, step: int, total_steps: int) -> float:
    """Momentum after a step: from ``start`` to 1 by half a cosine (BYOL, DINO).

    The first steps are forgotten faster, min(momentum, (1 + n) / (10 + n)), so that the teacher of
    a short run is not an average of its random start.

    Args:
        start: momentum of the first step.
        step: n, number of the step that was made, from 0.
        total_steps: of the whole run.
    """
    share = min(1.0, step / max(1, total_steps))
    momentum = 1.0 - (1.0 - start) * (math.cos(math.pi * share) + 1.0) / 2.0
    return min(momentum, (1 + step) / (10 + step))


class BodyFeatures:
    """What a teacher says of all body tokens of some images.

    Args:
        teacher: encodes the whole images.
        image: (B, C, A0, A1, A2), normalized.
        body: (B, N) bool on the CPU, tokens that hold anything but air.

    Attributes:
        tokens: (B, K, D); zero at padding.
        mask: (B, K) bool on the CPU, False at padding; None if there is none.
    """

    def __init__(self, teacher: Teacher, image: Tensor, body: Tensor) -> None:
        body = body.cpu()
        kept, self.mask = select_tokens(body)
        self.tokens = teacher(image, kept, self.mask)
        self._row = (body.long().cumsum(dim=1) - 1).clamp(min=0)  # row of a token in ``tokens``

    def of(self, tokens: Tensor) -> Tensor:
        """(B, M) indices of body tokens on the CPU -> (B, M, D) features."""
        rows = to_device(self._row.gather(1, tokens), self.tokens.device)
        return self.tokens.gather(1, rows[..., None].expand(-1, -1, self.tokens.shape[2]))


def normalized_features(features: Tensor) -> Tensor:
    """Normalize each token over its channels, in float32: the targets of I-JEPA (arXiv 2301.08243).

    Without it the student could make the loss small by making all features small.
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.layer_norm(features.float(), features.shape[-1:])
