"""The gradients of all objectives on one batch: which parts are encoded, and what compares them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from colipri.training.gradient_cache import contrastive_backward
from colipri.training.sentences import SentenceBatch, SentencePart, sentence_batch
from colipri.training.step import BatchEncoder, MicroBatch, pairs_of, representations

Objectives = dict[str, tuple[float, Any]]
Part = MicroBatch | SentencePart


class ObjectiveStep:
    """Weighted objectives of a run, applied to loader batches.

    Args:
        encoder: model and preprocessing.
        objectives: name -> (weight, objective), from ``build_objectives``.
        micro_batch_size: cases that fit in memory at once.
    """

    def __init__(
        self, encoder: BatchEncoder, objectives: Objectives, micro_batch_size: int
    ) -> None:
        self.encoder = encoder
        self.objectives = objectives
        self.micro_batch_size = micro_batch_size

    def backward(self, batch: dict[str, Any], seed: int, terms: dict[str, Tensor]) -> Tensor:
        """Add the gradients of the weighted sum of all objectives to the parameters.

        Args:
            batch: from the loader.
            seed: everything random in this step derives from it.
            terms: filled with "objective/term" -> scalar.

        Returns:
            The weighted loss, detached.
        """
        pairs = self.encoder.micro_batches(batch, self.micro_batch_size, seed)
        sentences = self.sentences(batch)
        positives = pairs_of(batch)

        def loss_of(embeddings: dict[str, Tensor]) -> Tensor:
            compared = representations(embeddings, positives, self.encoder.model)
            if sentences is not None:
                compared.opposites = sentences.compared(embeddings["sentences"])
            total = compared.image.new_zeros(())
            for name, (weight, objective) in self.objectives.items():
                loss, parts = objective(compared)
                total = total + weight * loss
                terms.update({f"{name}/{key}": value for key, value in parts.items()})
            return total

        sentence_parts = sentences.parts if sentences else []
        parts: list[Part] = [*pairs, *sentence_parts]
        return contrastive_backward(
            parts,
            self.encode,
            loss_of,
            self.encoder.device,
            one_pass=len(pairs) == 1 and len(sentence_parts) <= 1,
        )

    def sentences(self, batch: dict[str, Any]) -> SentenceBatch | None:
        """The batch's opposite sentences, tokenised; None where they are not trained."""
        if "opposite_sentence" not in self.objectives:
            return None
        longest = self.encoder.configuration.max_text_tokens
        return sentence_batch(
            batch["opposites"], self.encoder.tokenizer, longest, longest * self.micro_batch_size
        )

    def encode(self, part: Part) -> dict[str, Tensor]:
        """Embeddings of one part, by name."""
        if isinstance(part, SentencePart):
            return {"sentences": self.encoder.encode_tokens(part.tokens)}
        return self.encoder.encode(part)
