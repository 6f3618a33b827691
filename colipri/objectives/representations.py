"""What the objectives that compare cases of a whole batch look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class OppositeSentences:
    """Sentences of one batch and the P pairs that they form; S distinct sentences.

    Attributes:
        sentences: (S, E) float32, L2-normalised; each distinct sentence once.
        image_index: (P,) which image a pair is about.
        present_index, absent_index: (P,) rows of ``sentences``.
        shown: (P,) bool, True where the image shows what the first sentence says.
        weight: (P,) float, what a pair counts in the mean; None for all alike.
    """

    sentences: Tensor
    image_index: Tensor
    present_index: Tensor
    absent_index: Tensor
    shown: Tensor
    weight: Tensor | None = None


@dataclass
class Representations:
    """Embeddings of one contrastive batch; B paired cases, E the width of the shared space.

    Attributes:
        image: (B, E) float32, L2-normalised.
        text: (B, E) float32, L2-normalised.
        positives: (B, B) bool; ``positives[i, j]`` is True where image i and text j belong together
            or must not be pushed apart (:func:`colipri.objectives.positives.positive_pairs`).
        logit_scale: scalar, the inverse temperature (already exponentiated).
        logit_bias: scalar, used by the sigmoid loss.
        opposites: for the opposite sentence loss; None where it is not trained.
    """

    image: Tensor
    text: Tensor
    positives: Tensor
    logit_scale: Tensor
    logit_bias: Tensor
    opposites: OppositeSentences | None = None

    def __post_init__(self) -> None:
        if self.image.shape != self.text.shape:
            raise ValueError(
                f"images {self.image.shape} and texts {self.text.shape} do not pair up"
            )
        batch = self.image.shape[0]
        if self.positives.shape != (batch, batch) or self.positives.dtype != torch.bool:
            raise ValueError(f"positives must be ({batch}, {batch}) bool")
