"""Embeddings of scans, as they are (computed once) and changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from colipri.common.display import progress
from colipri.evaluation.prompts import PromptPair
from colipri.evaluation.zero_shot import encode_prompts, zero_shot_logits
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.predictor import ColipriPredictor, EncodedImage
from colipri.inference.volume import Volume


class Embeddings:
    """Encodes scans for several tests; a scan that is not changed is encoded once.

    Args:
        predictor: The model.
    """

    def __init__(self, predictor: ColipriPredictor) -> None:
        self.predictor = predictor
        self._plain: dict[str, Tensor] = {}

    def keep(self, image: EncodedImage) -> EncodedImage:
        """Remember the embedding of a scan that was encoded for another purpose."""
        self._plain[image.name] = image.embedding
        return image

    def plain(self, cases: Sequence[LabelledCase], description: str) -> Tensor:
        """Return (n, E) of the scans as they are.

        Args:
            cases: n.
            description: Of the progress bar.
        """
        missing = [case for case in cases if case.identifier not in self._plain]
        if missing:
            encoded = self.predictor.encode_many(case.volume for case in missing)
            for case, image in zip(
                missing, progress(encoded, description, len(missing)), strict=True
            ):
                self._plain[case.identifier] = image.embedding
        return torch.stack([self._plain[case.identifier] for case in cases])

    def changed(
        self, cases: Sequence[LabelledCase], change: Callable[[Volume], Volume], description: str
    ) -> Tensor:
        """Return (n, E) of the changed volumes.

        Args:
            cases: n.
            change: Volume -> changed volume.
            description: Of the progress bar.
        """

        def maker(case: LabelledCase) -> Callable[[], Volume]:
            return lambda: change(case.volume())

        encoded = self.predictor.encode_many(maker(case) for case in cases)
        return torch.stack([one.embedding for one in progress(encoded, description, len(cases))])

    def logits(self, embeddings: Tensor, prompts: Sequence[PromptPair]) -> np.ndarray:
        """Return the (n, F) zero-shot logits of embeddings.

        Args:
            embeddings: (n, E).
            prompts: Of F findings.
        """
        predictor = self.predictor
        positive, negative = encode_prompts(prompts, predictor.encode_texts)
        logits: np.ndarray = zero_shot_logits(
            embeddings, positive, negative, predictor.temperature
        ).numpy()
        return logits
