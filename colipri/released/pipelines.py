"""``ZeroShotImageClassificationPipeline``: scans and prompts to scores, as released."""

from __future__ import annotations

from typing import Any

import torch

from colipri.released.model import Model
from colipri.released.processor import Processor

Scores = list[dict[str, Any]]


class ZeroShotImageClassificationPipeline:
    """Softmax over the given prompts for each scan.

    Args:
        model: of ``get_model``.
        processor: of ``get_processor``.
        batch_size: scans that are encoded at once.
        num_workers: without effect, as in the released package.
    """

    def __init__(
        self, model: Model, processor: Processor, batch_size: int = 1, num_workers: int = 0
    ) -> None:
        self._model = model.eval()
        self._processor = processor
        self._batch_size = max(1, int(batch_size))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    @torch.no_grad()
    def __call__(self, images: Any, prompts: str | list[str]) -> Scores | list[Scores]:
        """Score scans.

        Args:
            images: a path, a scan, or a list of them.
            prompts: what is told apart; the scores of a scan add up to 1.

        Returns:
            ``[{"score": ..., "label": ...}, ...]``, or a list of these for a list of images.
        """
        labels = prompts if isinstance(prompts, list) else [prompts]
        text = self._model.encode_text(*self._processor.process_text(labels))
        given = images if isinstance(images, list) else [images]
        results: list[Scores] = []
        for first in range(0, len(given), self._batch_size):
            scans = self._processor.process_images(given[first : first + self._batch_size])
            batch = self._processor.to_images_batch(scans)
            embeddings = self._model.encode_image(batch, pool=True, project=True, normalize=True)
            for row in self._model.classify(embeddings, text):
                pairs = zip(labels, row.tolist(), strict=True)
                results.append([{"score": score, "label": label} for label, score in pairs])
        return results if isinstance(images, list) else results[0]
