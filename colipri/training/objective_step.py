"""The gradients of all objectives on one batch: which parts are encoded, and what compares them.

A batch is cut into parts that fit in memory, and each part is one forward pass:

* micro batches of cases with a report: image and caption are embedded for C and O, and the decoder
  of R reads the tokens of the same forward pass;
* sentences: the batch's distinct opposite sentences, for O;
* micro batches of all cases, with three quarters of the tokens hidden, for M. These passes are not
  shared with C, R and O: a report describes the whole scan, and of a nodule in one token three
  reports in four would speak without the encoder having seen it. The encoder computes on a quarter
  of the tokens there, at 13,824 tokens a ninth of the arithmetic.

Several processes deal the parts of each kind out among them (colipri.dataloading.sharing). Random
numbers are drawn anew for each part, from its place in the global batch, and every loss is divided
by the global batch, so the sum over all processes is what one process computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from colipri.common.seeds import derive_seed
from colipri.dataloading.sharing import Share
from colipri.objectives.registry import COMPARING, NEED_REPORTS
from colipri.text.prompts.captions import full_caption
from colipri.training.exchange import SharedEmbeddings
from colipri.training.gradient_cache import contrastive_backward
from colipri.training.processes import Processes
from colipri.training.sentences import SentenceBatch, SentencePart, sentence_batch
from colipri.training.step import (
    BatchEncoder,
    ImageRows,
    MicroBatch,
    paired_rows,
    pairs_of,
    representations,
)

Objectives = dict[str, tuple[float, Any]]
Terms = dict[str, Tensor]
Part = ImageRows | SentencePart


@dataclass(frozen=True)
class Dealt:
    """A part of this process, and its rows among the batch's embeddings (None: it is a filler)."""

    part: MicroBatch | SentencePart
    place: dict[str, slice] | None

    @property
    def counts(self) -> bool:
        """Whether its losses count."""
        return self.place is not None


class ObjectiveStep:
    """Weighted objectives of a run, applied to loader batches.

    Args:
        encoder: model and preprocessing.
        objectives: name -> (weight, objective), from ``build_objectives``.
        micro_batch_size: cases that fit in memory at once.
        processes: that share the batches.
        share: this process's part of a batch, the one that the loader reads.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        objectives: Objectives,
        micro_batch_size: int,
        processes: Processes | None = None,
        share: Share | None = None,
    ) -> None:
        self.encoder = encoder
        self.objectives = objectives
        self.micro_batch_size = micro_batch_size
        self.processes = processes or Processes()
        self.share = share or Share()
        self.compares = any(name in COMPARING for name in objectives)
        self.needs_reports = any(name in NEED_REPORTS for name in objectives)

    # ---------------------------------------------------------------- the two uses

    def backward(self, batch: dict[str, Any], seed: int, terms: Terms) -> Tensor:
        """Add the gradients of the weighted sum of all objectives to the parameters.

        They are those of the global batch, in every process.

        Args:
            batch: from the loader; objectives find the cases that they can use.
            seed: everything random in this step derives from it.
            terms: filled with "objective/term" -> scalar.

        Returns:
            The weighted loss, detached.
        """
        pairs, sentences = self.pairs(batch, seed), self.sentences(batch, seed)
        masked = self.masked(batch, seed)
        total = torch.zeros((), device=self.encoder.device)
        own = {  # of objectives that look at each case by itself: shares add up to the batch's
            f"{name}/loss": torch.zeros_like(total)
            for name, parts in (("report_generation", pairs), ("masked_image_modelling", masked))
            if name in self.objectives and parts
        }
        if pairs:
            mine, exchange = self.dealt(pairs, sentences.parts if sentences else [])
            one_of_each = len({type(dealt.part) for dealt in mine}) == len(mine)
            total = total + contrastive_backward(
                mine,
                lambda dealt: self.embed(dealt.part),
                self.comparison(batch, sentences, terms),
                self.encoder.device,
                lambda dealt: self.embed_with_loss(dealt.part, own if dealt.counts else {}),
                one_pass=one_of_each and not self.share.fill,
                exchange=exchange,
            )
        for number, counts in self.share.of(len(masked)):
            loss = self.masked_loss(masked[number], own if counts else {})
            (loss if counts else 0.0 * loss).backward()
            total = total + loss.detach() if counts else total
        sums = self.processes.sum(torch.stack([total, *own.values()]))
        terms.update(zip(own, sums[1:], strict=True))
        self.processes.sum_gradients(self.encoder.model.parameters())
        return sums[0]

    def evaluate(self, batch: dict[str, Any], terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss and the embeddings of one batch, without gradients."""
        pairs, sentences = self.pairs(batch, 0), self.sentences(batch, 0)
        total = torch.zeros((), device=self.encoder.device)
        embeddings: dict[str, Tensor] = {}
        if pairs:
            parts: list[Part] = [*pairs, *(sentences.parts if sentences else [])]
            encoded = [self.embed_with_loss(part, terms) for part in parts]
            for name in dict.fromkeys(name for part, _ in encoded for name in part):
                embeddings[name] = torch.cat([part[name] for part, _ in encoded if name in part])
            total = total + sum(own for _, own in encoded if own is not None)
            if embeddings:
                total = total + self.comparison(batch, sentences, terms)(embeddings)
        for part in self.masked(batch, 0):
            total = total + self.masked_loss(part, terms)
        return total, embeddings

    # ---------------------------------------------------------------- parts of a batch

    def pairs(self, batch: dict[str, Any], seed: int) -> list[MicroBatch]:
        """Micro batches of the cases with a report; none where no objective needs one."""
        if not self.needs_reports:
            return []
        rows = paired_rows(batch)
        return self.encoder.micro_batches(batch, self.micro_batch_size, seed, rows)

    def sentences(self, batch: dict[str, Any], seed: int) -> SentenceBatch | None:
        """The batch's opposite sentences, tokenised; None where they are not trained."""
        if "opposite_sentence" not in self.objectives:
            return None
        longest = self.encoder.configuration.max_text_tokens
        return sentence_batch(
            [batch["opposites"][row] for row in paired_rows(batch)],
            self.encoder.tokenizer,
            longest,
            longest * self.micro_batch_size,
            seed,
        )

    def masked(self, batch: dict[str, Any], seed: int) -> list[ImageRows]:
        """Micro batches of all cases, for masked image modelling; none without it."""
        if "masked_image_modelling" not in self.objectives:
            return []
        return self.encoder.image_rows(batch, self.micro_batch_size, seed)

    def dealt(
        self, pairs: list[MicroBatch], sentences: list[SentencePart]
    ) -> tuple[list[Dealt], SharedEmbeddings]:
        """This process' parts of either kind, and the way to all embeddings."""
        rows: dict[str, int] = {}
        mine: list[Dealt] = []
        kinds: list[tuple[tuple[str, ...], Sequence[MicroBatch | SentencePart]]] = [
            (("image", "text") if self.compares else (), pairs),
            (("sentences",), sentences),
        ]
        for names, parts in kinds:
            ends = [0, *accumulate(part.count for part in parts)]
            rows |= dict.fromkeys(names, ends[-1]) if parts else {}
            for number, counts in self.share.of(len(parts)):
                place = slice(ends[number], ends[number + 1])
                mine.append(Dealt(parts[number], dict.fromkeys(names, place) if counts else None))
        exchange = SharedEmbeddings(
            self.processes,
            rows,
            [dealt.place for dealt in mine],
            self.encoder.model.image_projector.out_features,
            self.encoder.device,
        )
        return mine, exchange

    # ---------------------------------------------------------------- what is computed on a part

    def draw_anew(self, part: Part) -> None:
        """Drop path and dropout of a part are a function of its place in the global batch."""
        if self.encoder.model.training:
            torch.manual_seed(derive_seed(part.seed, "forward"))

    def comparison(
        self, batch: dict[str, Any], sentences: SentenceBatch | None, terms: Terms
    ) -> Callable[[dict[str, Tensor]], Tensor]:
        """The loss of all objectives that compare cases, as a function of all embeddings."""
        positives = pairs_of(batch)

        def loss_of(embeddings: dict[str, Tensor]) -> Tensor:
            compared = representations(embeddings, positives, self.encoder.model)
            if sentences is not None:
                compared.opposites = sentences.compared(embeddings["sentences"])
            total = compared.image.new_zeros(())
            for name in (name for name in self.objectives if name in COMPARING):
                weight, objective = self.objectives[name]
                loss, parts = objective(compared)
                total = total + weight * loss
                terms[f"{name}/loss"] = loss.detach()
                terms.update({f"{name}/{key}": value for key, value in parts.items()})
            return total

        return loss_of

    def embed(self, part: Part) -> dict[str, Tensor]:
        """Embeddings of one part, by name; none where nothing compares them."""
        self.draw_anew(part)
        if isinstance(part, SentencePart):
            return {"sentences": self.encoder.encode_tokens(part.tokens)}
        assert isinstance(part, MicroBatch)
        return self.encoder.encode(part) if self.compares else {}

    def embed_with_loss(self, part: Part, terms: Terms) -> tuple[dict[str, Tensor], Tensor | None]:
        """As :meth:`embed`, and this part's share of report generation, from the same forward."""
        if isinstance(part, SentencePart) or "report_generation" not in self.objectives:
            return self.embed(part), None
        assert isinstance(part, MicroBatch)
        self.draw_anew(part)
        features, key_mask = self.encoder.encode_images(part)
        embeddings = {}
        if self.compares:
            text = self.encoder.encode_tokens(part.tokens)
            embeddings = {"image": features.embedding.float(), "text": text}
        weight, objective = self.objectives["report_generation"]
        reports = [full_caption(part.batch["report"][row]) for row in part.rows]
        with self.encoder.autocasting():
            losses = objective(
                self.encoder.model.report_decoder,
                features.tokens,
                key_mask,
                self.encoder.report_tokens(reports, objective.max_tokens),
                part.row_seeds("report"),
            )
        share = losses.sum() / len(paired_rows(part.batch))
        return embeddings, weight * _noted(terms, "report_generation/loss", share)

    def masked_loss(self, part: ImageRows, terms: Terms) -> Tensor:
        """This part's share of masked image modelling."""
        self.draw_anew(part)
        weight, objective = self.objectives["masked_image_modelling"]
        image, body, _ = self.encoder.image_and_body(part)
        model = self.encoder.model
        with self.encoder.autocasting():
            losses = objective(
                model.image_encoder,
                model.masked_decoder,
                image,
                body,
                part.row_seeds("mask"),
                self.encoder.air,
            )
        share = losses.sum() / len(part.batch["case"])
        return weight * _noted(terms, "masked_image_modelling/loss", share)


def _noted(terms: Terms, name: str, share: Tensor) -> Tensor:
    """Add a part's share to the batch's term, and return it."""
    terms[name] = terms.get(name, torch.zeros_like(share)).detach() + share.detach()
    return share
