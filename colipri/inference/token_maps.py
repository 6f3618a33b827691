"""What every token of an image says of a text: its similarity, or the attention of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.inference.checkpoint_heads import heads_of_checkpoint
from colipri.inference.heatmap import token_similarity
from colipri.objectives.base import Objective

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor, EncodedImage

SIMILARITY, ATTENTION = METHODS = ("similarity", "attention")
MEANINGS = {SIMILARITY: "cosine present - absent", ATTENTION: "attention, 1 = as anywhere"}


class TokenMaps:
    """Values of an image's tokens for texts.

    Args:
        predictor: the model.
        method: "similarity" (cosine to the affirming text minus that to the negating one) or
            "attention" (of the affirming text, 1 where it looks as much as anywhere).

    Raises:
        ColipriError: an unknown method, or the checkpoint has nothing that attends.
    """

    def __init__(self, predictor: ColipriPredictor, method: str = SIMILARITY) -> None:
        if method not in METHODS:
            raise ColipriError(f"the method must be {' or '.join(METHODS)}, not {method}")
        self.predictor = predictor
        self.meaning = MEANINGS[method]
        self._attends = None
        if method == ATTENTION:
            self._attends = heads_of_checkpoint(predictor, _has_attention)
            if self._attends is None:
                raise ColipriError(
                    f"{predictor.source} has no sentence attention: train with objective A "
                    f"(ColipriTrainer_CA), or use --method {SIMILARITY}"
                )

    def of(self, image: EncodedImage, positive: Tensor, negative: Tensor) -> list[np.ndarray]:
        """Return (K,) float32 for each of n pairs of texts.

        Args:
            image: encoded.
            positive, negative: (n, E), L2-normalized.
        """
        if self._attends is None:
            dense = self.predictor.project(image)
            return [token_similarity(dense, *pair) for pair in zip(positive, negative, strict=True)]
        objective, heads = self._attends
        device = self.predictor.device
        with torch.inference_mode():
            found = objective.token_attention(heads, image.tokens.to(device), positive.to(device))
        return list(found.float().cpu().numpy())


def _has_attention(objective: Objective) -> bool:
    return type(objective).token_attention is not Objective.token_attention
