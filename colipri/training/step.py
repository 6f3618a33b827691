"""One batch on the device: cut into micro batches, normalise, augment, drop air, encode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel, ImageFeatures
from colipri.architectures.primus import select_tokens
from colipri.common.seeds import derive_seed
from colipri.dataloading.augmentation import augment_on_device
from colipri.dataloading.normalization import (
    air_value,
    normalize_on_device,
    tissue_threshold,
)
from colipri.dataloading.sharing import cut
from colipri.experiment_planning.plans import Configuration, Plans
from colipri.objectives.positives import positive_pairs
from colipri.objectives.report_generation import ReportTokens
from colipri.objectives.representations import Representations
from colipri.text.anatomy import names_a_side
from colipri.text.prompts.short_prompts import report_prompts
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.sentences import split_sentences
from colipri.text.tokenizer import encode_batch


@dataclass(frozen=True)
class ImageRows:
    """Some rows of a loader batch.

    Attributes:
        batch: the whole batch.
        rows: indices into it.
        seed: of augmentation, token dropping and drop path in these rows.
        step_seed: of the whole step.
    """

    batch: dict[str, Any]
    rows: tuple[int, ...]
    seed: int
    step_seed: int

    @property
    def count(self) -> int:
        """Cases."""
        return len(self.rows)

    @property
    def places(self) -> list[int]:
        """Where the images of these rows stand among those of the batch that were read here."""
        image_row = self.batch.get("image_row")
        return list(self.rows) if image_row is None else [image_row[row] for row in self.rows]

    def row_seeds(self, purpose: str) -> list[int]:
        """One seed a row that does not depend on how the batch is cut."""
        return [derive_seed(self.step_seed, purpose, row) for row in self.rows]


@dataclass(frozen=True)
class MicroBatch(ImageRows):
    """Rows with a report, and the tokens of their captions."""

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
        self.air = air_value(plans, configuration)
        self._samples_seen = self._tokens_seen = 0

    # ---------------------------------------------------------------- parts of a batch

    def micro_batches(
        self, batch: dict[str, Any], size: int, seed: int, rows: Sequence[int] | None = None
    ) -> list[MicroBatch]:
        """Cut a loader batch, or some rows of it, into micro batches of ``size`` cases.

        Captions are tokenised once for all of them.
        """
        chosen = range(len(batch["case"])) if rows is None else rows
        if not chosen:
            return []
        captions = [batch["caption"][row] for row in chosen]
        tokens = encode_batch(self.tokenizer, captions, self.configuration.max_text_tokens)
        return [
            MicroBatch(
                batch,
                rows,
                derive_seed(seed, "micro", number * size),
                seed,
                {n: values[number * size :][: len(rows)] for n, values in tokens.items()},
            )
            for number, rows in enumerate(cut(chosen, size))
        ]

    def image_rows(self, batch: dict[str, Any], size: int, seed: int) -> list[ImageRows]:
        """Cut all cases of a loader batch, with a report or without, into parts of ``size``."""
        return [
            ImageRows(batch, rows, derive_seed(seed, "masked", number * size), seed)
            for number, rows in enumerate(cut(range(len(batch["case"])), size))
        ]

    def report_tokens(self, reports: list[str], max_tokens: int | None) -> ReportTokens:
        """Whole reports as report generation reads and writes them, on the device."""
        limit = max_tokens or self.configuration.max_text_tokens
        tokens = encode_batch(self.tokenizer, reports, limit)
        return ReportTokens.from_encoded(
            tokens["input_ids"].to(self.device),
            tokens["attention_mask"].to(self.device),
            self.tokenizer.mask_token_id,
        )

    def mean_tokens(self) -> float | None:
        """Image tokens per sample that the encoder has worked on so far in training."""
        return self._tokens_seen / self._samples_seen if self._samples_seen else None

    # ---------------------------------------------------------------- encoding

    def autocasting(self) -> torch.autocast:
        """The context in which models compute: bf16 where it is wanted."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def encode(self, part: MicroBatch) -> dict[str, Tensor]:
        """Embeddings of one micro batch: {"image": (b, E), "text": (b, E)}, float32, normalised."""
        features, _ = self.encode_images(part)
        return {"image": features.embedding.float(), "text": self.encode_tokens(part.tokens)}

    def encode_images(self, part: ImageRows) -> tuple[ImageFeatures, Tensor | None]:
        """Tokens and embeddings of the images, and the tokens' mask (False at fillers)."""
        image, keep, key_mask = self.image_input(part)
        with self.autocasting():
            return self.model.encode_image(image, keep, key_mask), key_mask

    def encode_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        """(B, T) token ids and mask -> (B, E) float32, normalised."""
        with self.autocasting():
            embedded = self.model.encode_text(
                tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
            )
        return embedded.float()

    def image_input(self, part: ImageRows) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image on the device as the encoder sees it, and which of its tokens are kept."""
        image, body, generator = self.image_and_body(part)
        keep_ratio = self.keep_ratio if self.model.training else 1.0
        keep, key_mask = select_tokens(body, keep_ratio=keep_ratio, generator=generator)
        if self.model.training:
            self._samples_seen += keep.shape[0]
            self._tokens_seen += keep.numel()
        return image, keep, key_mask

    def image_and_body(self, part: ImageRows) -> tuple[Tensor, Tensor, torch.Generator]:
        """Normalised (in training also augmented) images, their body tokens, and the generator."""
        image = part.batch["image"][part.places].to(self.device, non_blocking=True)
        body = part.batch["body"][part.places].to(self.device, non_blocking=True)
        image = normalize_on_device(image, self.plans, self.configuration)
        generator = torch.Generator(self.device).manual_seed(part.seed)
        if self.model.training:
            reports = [part.batch["report"][row] for row in part.rows]
            image, body = augment_on_device(
                image,
                body,
                generator,
                self.configuration.raw["augmentation"],
                # the whole report counts, not only this caption: it decides the positives as well
                [report is not None and names_a_side(report.text) for report in reports],
                self.configuration.raw["spacing"],
                self.air,
                tissue_threshold(self.plans, self.configuration),
            )
        return image, body, generator


def paired_rows(batch: dict[str, Any]) -> list[int]:
    """Rows of a loader batch that have a report."""
    return [row for row, report in enumerate(batch["report"]) if report is not None]


def pairs_of(batch: dict[str, Any]) -> Tensor:
    """(B, B) positives of the cases with a report, from studies and texts."""
    rows = paired_rows(batch)
    captions = [_statements(split_sentences(batch["caption"][row])) for row in rows]
    reports = [
        _statements(s.text for s in batch["report"][row].sentences())
        | report_prompts(batch["report"][row])  # captions may be short prompts
        for row in rows
    ]
    return positive_pairs([batch["study"][row] for row in rows], captions, reports)


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
