"""One contrastive batch on the device: normalise, augment, drop air, encode, compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import select_tokens
from colipri.common.seeds import derive_seed
from colipri.dataloading.augmentation import augment_on_device
from colipri.dataloading.normalization import (
    air_value,
    normalize_on_device,
    tissue_threshold,
)
from colipri.experiment_planning.plans import Configuration, Plans
from colipri.objectives.positives import positive_pairs
from colipri.objectives.representations import Representations
from colipri.text.cleaning import fold_spaces
from colipri.text.laterality import names_a_side
from colipri.text.sentences import split_sentences
from colipri.text.tokenizer import encode_batch


@dataclass(frozen=True)
class MicroBatch:
    """Rows ``start:stop`` of a loader batch, with the tokens of their captions."""

    batch: dict[str, Any]
    start: int
    stop: int
    seed: int
    tokens: dict[str, Tensor]


class BatchEncoder:
    """Turns loader batches into embeddings, in training (augmented) or validation (as stored).

    Args:
        model: on ``device``.
        plans, configuration: normalisation, text length, augmentation and token patch.
        tokenizer: of the model's text encoder.
        device: where to compute.
        autocast: bf16 mixed precision.
        keep_ratio: share of the body tokens seen in training.
    """

    def __init__(
        self,
        model: ColipriModel,
        plans: Plans,
        configuration: Configuration,
        tokenizer: Any,
        device: torch.device,
        autocast: bool,
        keep_ratio: float = 1.0,
    ) -> None:
        self.model = model
        self.plans = plans
        self.configuration = configuration
        self.tokenizer = tokenizer
        self.device = device
        self.autocast = autocast
        self.keep_ratio = keep_ratio
        self._samples_seen = self._tokens_seen = 0

    def micro_batches(self, batch: dict[str, Any], size: int, seed: int) -> list[MicroBatch]:
        """Cut a loader batch into rows of ``size``; texts are tokenised once for all of them."""
        tokens = encode_batch(self.tokenizer, batch["caption"], self.configuration.max_text_tokens)
        total = len(batch["case"])
        return [
            MicroBatch(
                batch,
                start,
                min(start + size, total),
                derive_seed(seed, "micro", start),
                {name: rows[start : start + size] for name, rows in tokens.items()},
            )
            for start in range(0, total, size)
        ]

    def mean_tokens(self) -> float | None:
        """Image tokens per sample that the encoder has worked on so far in training."""
        return self._tokens_seen / self._samples_seen if self._samples_seen else None

    def encode(self, part: MicroBatch) -> dict[str, Tensor]:
        """Embeddings of one micro batch: {"image": (b, E), "text": (b, E)}, float32, normalised."""
        image, keep, key_mask = self.image_input(part)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            features = self.model.encode_image(image, keep, key_mask)
        return {"image": features.embedding.float(), "text": self.encode_tokens(part.tokens)}

    def encode_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        """(B, T) token ids and mask -> (B, E) float32, normalised."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            embedded = self.model.encode_text(
                tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
            )
        return embedded.float()

    def image_input(self, part: MicroBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image on the device as the encoder sees it, and which of its tokens are kept."""
        rows = slice(part.start, part.stop)
        image = part.batch["image"][rows].to(self.device, non_blocking=True)
        body = part.batch["body"][rows].to(self.device, non_blocking=True)
        image = normalize_on_device(image, self.plans, self.configuration)
        generator = torch.Generator(self.device).manual_seed(part.seed)
        keep_ratio = 1.0
        if self.model.training:
            image, body = augment_on_device(
                image,
                body,
                generator,
                self.configuration.raw["augmentation"],
                # the whole report counts, not only this caption: it decides the positives as well
                [
                    report is not None and names_a_side(report.text)
                    for report in part.batch["report"][rows]
                ],
                self.configuration.raw["spacing"],
                air_value(self.plans, self.configuration),
                tissue_threshold(self.plans, self.configuration),
            )
            keep_ratio = self.keep_ratio
        keep, key_mask = select_tokens(body, keep_ratio=keep_ratio, generator=generator)
        if self.model.training:
            self._samples_seen += keep.shape[0]
            self._tokens_seen += keep.numel()
        return image, keep, key_mask


def pairs_of(batch: dict[str, Any]) -> Tensor:
    """(B, B) positives of a loader batch, from studies and texts."""
    captions = [_statements(split_sentences(text)) for text in batch["caption"]]
    reports = [_statements(s.text for s in report.sentences()) for report in batch["report"]]
    return positive_pairs(batch["study"], captions, reports)


def _statements(sentences: Iterable[str]) -> frozenset[str]:
    """Sentences without what depends on where they stand: case, spaces, the full stop."""
    return frozenset(fold_spaces(text).strip(" .").lower() for text in sentences)


def representations(
    embeddings: dict[str, Tensor], positives: Tensor, model: ColipriModel
) -> Representations:
    """What the contrastive objectives compare."""
    return Representations(
        embeddings["image"],
        embeddings["text"],
        positives.to(embeddings["image"].device),
        model.temperature_scale(),
        model.logit_bias,
    )
