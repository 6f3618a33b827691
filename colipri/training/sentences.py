"""The opposite sentences of one batch: each distinct one encoded once, in bounded micro batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colipri.common.seeds import derive_seed
from colipri.dataloading.opposites import OppositePair
from colipri.objectives.representations import OppositeSentences
from colipri.text.tokenizer import encode_batch


@dataclass(frozen=True)
class SentencePart:
    """Tokens of some of the batch's distinct sentences, (s, t) each; ``seed``: of dropout."""

    tokens: dict[str, Tensor]
    seed: int

    @property
    def count(self) -> int:
        """Sentences."""
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class SentenceBatch:
    """The distinct sentences of a batch, cut into parts, and the pairs that refer to them.

    Attributes:
        parts: in the order of the sentences.
        image_index, present_index, absent_index, shown, weight: see OppositeSentences; on the CPU.
    """

    parts: list[SentencePart]
    image_index: Tensor
    present_index: Tensor
    absent_index: Tensor
    shown: Tensor
    weight: Tensor

    def compared(self, sentences: Tensor) -> OppositeSentences:
        """Pairs for the objective, on the device of the sentences' embeddings (S, E)."""
        device = sentences.device
        return OppositeSentences(
            sentences,
            self.image_index.to(device),
            self.present_index.to(device),
            self.absent_index.to(device),
            self.shown.to(device),
            self.weight.to(device),
        )


def sentence_batch(
    pairs_of_images: Sequence[Sequence[OppositePair]],
    tokenizer: Any,
    max_tokens: int,
    tokens_at_once: int,
    seed: int = 0,
) -> SentenceBatch | None:
    """Collect, deduplicate and tokenise; None where no image has a pair.

    Sentences are ordered by length, so that short ones are not padded to the longest of the batch.

    Args:
        pairs_of_images: of every image with an embedding, in the order of the embeddings.
        max_tokens: longer sentences are cut.
        tokens_at_once: padding included, of one part; what a micro batch of captions may hold.
        seed: of the step.
    """
    pairs = [(image, pair) for image, found in enumerate(pairs_of_images) for pair in found]
    if not pairs:
        return None
    distinct = list(
        dict.fromkeys(text for _, pair in pairs for text in (pair.present, pair.absent))
    )
    ids = tokenizer(distinct, truncation=True, max_length=max_tokens)["input_ids"]
    lengths = dict(zip(distinct, map(len, ids), strict=True))
    ordered = sorted(distinct, key=lambda text: lengths[text])  # stable: a function of the batch
    rows = {text: row for row, text in enumerate(ordered)}
    return SentenceBatch(
        [
            SentencePart(
                encode_batch(tokenizer, part, max_tokens), derive_seed(seed, "sentences", number)
            )
            for number, part in enumerate(_parts(ordered, lengths, tokens_at_once))
        ],
        torch.tensor([image for image, _ in pairs]),
        torch.tensor([rows[pair.present] for _, pair in pairs]),
        torch.tensor([rows[pair.absent] for _, pair in pairs]),
        torch.tensor([pair.shown for _, pair in pairs]),
        torch.tensor([pair.weight for _, pair in pairs]),
    )


def _parts(ordered: list[str], lengths: dict[str, int], tokens_at_once: int) -> list[list[str]]:
    """Cut texts of ascending length so that count times longest stays within the limit."""
    parts: list[list[str]] = [[]]
    for text in ordered:
        if parts[-1] and (len(parts[-1]) + 1) * lengths[text] > tokens_at_once:
            parts.append([])
        parts[-1].append(text)
    return parts
