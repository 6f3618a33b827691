"""The gradients of all objectives on one batch: which parts are encoded, and what compares them.

A batch is cut into parts that fit in memory, and each part is one forward pass:

* cases with a report: image and caption are embedded for the objectives that compare, and those
  that look at pairs read the tokens of the same forward pass;
* further texts of the objectives that compare;
* all cases, once for every objective that looks at images alone. These passes are not shared:
  masked image modelling hides three quarters of the tokens, so three reports in four would mention
  a nodule of one token that the encoder has not seen.

Several processes share the parts of each kind (colipri.dataloading.sharing). Random numbers are
seeded for each part from its place in the global batch, and every loss is divided by the size of
the global batch, so the sum over all processes is what one process computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.packing import to_device
from colipri.common.hashing import derive_seed
from colipri.dataloading.sharing import Shard
from colipri.objectives.base import FinishedStep, Objective
from colipri.objectives.batch import (
    Batch,
    CasePart,
    ContrastiveBatch,
    ImageInput,
    PairInput,
    TextPart,
    map_tensors,
)
from colipri.objectives.registry import heads_of
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.distributed.processes import Processes
from colipri.training.distributed.sharding import sync_in_this_pass
from colipri.training.grad_cache import SharedEmbeddings, grad_cache_backward
from colipri.training.query_texts import QueryTexts

Terms = dict[str, Tensor]
Part = CasePart | TextPart


@dataclass(frozen=True)
class AssignedPart:
    """A part of this process, and its rows among the batch's embeddings (None: padding)."""

    part: Part
    rows: dict[str, slice] | None

    @property
    def is_counted(self) -> bool:
        """True if its losses count."""
        return self.rows is not None


class TrainingStep:
    """The weighted objectives of a run, applied to batches.

    Args:
        encoder: model and preprocessing.
        objectives: name -> objective.
        micro_batch_size: cases that fit in memory at once.
        processes: that share the batches.
        shard: which parts of a batch belong to this process; the loader reads the same ones.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        objectives: Mapping[str, Objective],
        micro_batch_size: int,
        processes: Processes | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.encoder = encoder
        self.objectives = objectives
        self.micro_batch_size = micro_batch_size
        self.processes = processes or Processes()
        self.shard = shard or Shard()
        self.comparing = {n: o for n, o in objectives.items() if o.compares}
        self.on_pairs = {n: o for n, o in objectives.items() if o.reads_pairs}
        self.on_images = {n: o for n, o in objectives.items() if o.reads_images}
        self.observed: dict[str, dict[str, Tensor]] = {}

    # ---------------------------------------------------------------- the two uses

    def backward(self, batch: Batch, seed: int, terms: Terms) -> Tensor:
        """Add the gradients of the weighted sum of all objectives to the parameters.

        They are those of the global batch, in every process.

        Args:
            batch: from the loader; objectives find the cases that they can use.
            seed: everything random in this step derives from it.
            terms: filled with "objective/term" -> scalar.

        Returns:
            The weighted loss, detached.
        """
        pairs, texts = self.pair_parts(batch, seed), self.text_parts(batch, seed)
        self.observed = {name: self.nothing_observed(name) for name in self.on_images}
        total = torch.zeros((), device=self.encoder.device)
        own = {  # of objectives that look at each case by itself: shares add up to the batch's
            f"{name}/loss": torch.zeros_like(total)
            for name in self.objectives
            if (name in self.on_pairs and pairs) or name in self.on_images
        }
        if pairs:
            asked = self.query_texts(batch, seed)
            mine, exchange = self.assign(pairs, texts)
            last = self.last_passes(mine, bool(self.on_images), bool(asked))
            one_of_each = len({_kind(assigned.part) for assigned in mine}) == len(mine)
            self.encoder.images.expect(assigned.part for assigned in mine)
            total = total + grad_cache_backward(
                mine,
                lambda assigned: self.embed(assigned.part),
                self.comparison(batch, terms),
                self.encoder.device,
                lambda assigned: self.embed_with_loss_synced(
                    assigned, own if assigned.is_counted else {}, last, asked
                ),
                one_pass=one_of_each and not self.shard.pad,
                exchange=exchange,
            )
            self.backward_through_texts(asked)
        for name in self.on_images:
            parts = self.image_parts(name, batch, seed)
            of_mine = self.shard.of(len(parts))
            self.encoder.images.expect(parts[number] for number, _ in of_mine)
            for place, (number, is_counted) in enumerate(of_mine, start=1):
                ends = name == list(self.on_images)[-1] and place == len(of_mine)
                sync_in_this_pass(self.encoder.model, image=ends, text=False)
                observed = self.observed[name] if is_counted else self.nothing_observed(name)
                loss = self.image_loss(name, parts[number], own if is_counted else {}, observed)
                (loss if is_counted else 0.0 * loss).backward()
                total = total + loss.detach() if is_counted else total
        sums = self.processes.sum(torch.stack([total, *own.values()]))
        terms.update(zip(own, sums[1:], strict=True))
        for observed in self.observed.values():
            for value in observed.values():
                self.processes.sum(value)
        self.processes.sum_gradients(self.encoder.model.parameters())
        return sums[0]

    def last_passes(
        self, mine: Sequence[AssignedPart], images_follow: bool, texts_follow: bool
    ) -> tuple[AssignedPart | None, AssignedPart | None]:
        """Return the last of this process's parts whose gradients reach the image tower, and the
        last that reaches the text tower.

        Args:
            mine: parts with texts, in the order of their passes.
            images_follow: the passes of objectives on images alone come after them.
            texts_follow: those of texts that losses of single cases ask with.
        """
        images = [one for one in mine if isinstance(one.part, CasePart)]
        texts = [one for one in mine if self.comparing or isinstance(one.part, TextPart)]
        image = None if images_follow or not images else images[-1]
        return image, None if texts_follow or not texts else texts[-1]

    def embed_with_loss_synced(
        self,
        assigned: AssignedPart,
        terms: Terms,
        last: tuple[AssignedPart | None, AssignedPart | None],
        asked: Mapping[str, QueryTexts],
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As :meth:`embed_with_loss`; sharded towers exchange gradients in their last pass.

        Args:
            assigned: the part.
            terms: the objectives' terms are added to.
            last: of :meth:`last_passes`.
            asked: of :meth:`query_texts`.
        """
        image, text = last
        sync_in_this_pass(self.encoder.model, image=assigned is image, text=assigned is text)
        return self.embed_with_loss(assigned.part, terms, asked)

    def evaluate(self, batch: Batch, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted loss and the embeddings of one batch, without gradients."""
        pairs, texts = self.pair_parts(batch, 0), self.text_parts(batch, 0)
        total = torch.zeros((), device=self.encoder.device)
        embeddings: dict[str, Tensor] = {}
        if pairs:
            parts: list[Part] = [*pairs, *texts]
            self.encoder.images.expect(parts)
            asked = self.query_texts(batch, 0, share=False)
            encoded = [self.embed_with_loss(part, terms, asked) for part in parts]
            for name in dict.fromkeys(name for part, _ in encoded for name in part):
                embeddings[name] = torch.cat([part[name] for part, _ in encoded if name in part])
            total = total + sum(own for _, own in encoded if own is not None)
            if embeddings:
                total = total + self.comparison(batch, terms)(embeddings)
        for name in self.on_images:
            for images in self.image_parts(name, batch, 0):
                observed = self.nothing_observed(name)
                total = total + self.image_loss(name, images, terms, observed)
        return total, embeddings

    # ---------------------------------------------------------------- around a step

    def before_first_step(self) -> None:
        """Start what follows the model, such as teachers, once its first weights are known."""
        model = self.encoder.model
        for objective in self.objectives.values():
            objective.before_first_step(model, heads_of(model, objective))

    def after_step(self, number: int, total: int) -> None:
        """Let objectives change what no gradient changes, after an update of the weights.

        Args:
            number: of the step in its stage, from 0.
            total: steps of the stage.
        """
        model = self.encoder.model
        for name, objective in self.objectives.items():
            observed = self.observed.get(name, {})
            heads = heads_of(model, objective)
            objective.after_step(FinishedStep(model, heads, number, total, observed))

    def nothing_observed(self, name: str) -> dict[str, Tensor]:
        """Return zeros of what an objective observes in the cases of a batch."""
        objective = self.objectives[name]
        return objective.observed(heads_of(self.encoder.model, objective))

    # ---------------------------------------------------------------- parts of a batch

    def pair_parts(self, batch: Batch, seed: int) -> list[CasePart]:
        """Cut the cases with a report into parts; none if no objective needs a report."""
        if not (self.comparing or self.on_pairs):
            return []
        return self.encoder.pair_parts(batch, self.micro_batch_size, seed)

    def text_parts(self, batch: Batch, seed: int) -> list[TextPart]:
        """Return further texts of the objectives that compare."""
        return [part for name in self.comparing for part in self.texts_of(name, batch, seed)]

    def texts_of(self, name: str, batch: Batch, seed: int) -> list[TextPart]:
        """Return further texts of an objective.

        Args:
            name: of the objective.
            batch: from the loader.
            seed: of the step.
        """
        texts = self.objectives[name].further_texts(batch.collated.get(name))
        return [
            TextPart(name, tokens, derive_seed(seed, "sentences", number))
            for number, tokens in enumerate(texts)
        ]

    def query_texts(self, batch: Batch, seed: int, share: bool = True) -> dict[str, QueryTexts]:
        """Encode the texts that losses of single cases ask with, by objective.

        Args:
            batch: from the loader.
            seed: of the step.
            share: among the processes; otherwise this one encodes all of them.
        """
        model, found = self.encoder.model, {}
        for name in self.on_pairs:
            parts = [] if name in self.comparing else self.texts_of(name, batch, seed)
            if parts:
                found[name] = QueryTexts.encode(
                    parts,
                    self.embed_text,
                    model.image_projector.out_features,
                    self.encoder.device,
                    self.processes if share else Processes(),
                    self.shard if share else Shard(),
                )
        return found

    def backward_through_texts(self, asked: Mapping[str, QueryTexts]) -> None:
        """Send gradients of the cases through the texts that they were asked with."""
        mine = [part for texts in asked.values() for part, _, _ in texts.mine]

        def before(part: TextPart) -> None:
            sync_in_this_pass(self.encoder.model, image=False, text=part is mine[-1])

        for texts in asked.values():
            texts.backward(self.embed_text, self.processes, before)

    def image_parts(self, name: str, batch: Batch, seed: int) -> list[CasePart]:
        """Cut all cases into parts, for an objective that looks at images alone.

        Args:
            name: of the objective.
            batch: from the loader.
            seed: of the step.
        """
        purpose = self.objectives[name].seed_name or name
        return self.encoder.image_parts(batch, self.micro_batch_size, seed, purpose)

    def assign(
        self, pairs: list[CasePart], texts: list[TextPart]
    ) -> tuple[list[AssignedPart], SharedEmbeddings]:
        """Return this process's parts of each kind, and what exchanges embeddings."""
        rows: dict[str, int] = {}
        mine: list[AssignedPart] = []
        kinds: list[tuple[tuple[str, ...], Sequence[Part]]] = [
            (("image", "text") if self.comparing else (), pairs)
        ]
        for name in self.comparing:
            kinds.append(((name,), [part for part in texts if part.objective == name]))
        for names, parts in kinds:
            ends = [0, *accumulate(part.count for part in parts)]
            rows |= dict.fromkeys(names, ends[-1]) if parts else {}
            for number, is_counted in self.shard.of(len(parts)):
                place = slice(ends[number], ends[number + 1])
                placed = dict.fromkeys(names, place) if is_counted else None
                mine.append(AssignedPart(parts[number], placed))
        exchange = SharedEmbeddings(
            self.processes,
            rows,
            [assigned.rows for assigned in mine],
            self.encoder.model.image_projector.out_features,
            self.encoder.device,
        )
        return mine, exchange

    # ---------------------------------------------------------------- what is computed on a part

    def seed_part(self, part: Part) -> None:
        """Make drop path and dropout of a part a function of its place in the global batch."""
        if self.encoder.model.training:
            torch.manual_seed(derive_seed(part.seed, "forward"))

    def comparison(self, batch: Batch, terms: Terms) -> Callable[[dict[str, Tensor]], Tensor]:
        """Return the loss of all objectives that compare cases, as a function of all embeddings."""
        device, model = self.encoder.device, self.encoder.model
        collated = {
            name: map_tensors(batch.collated.get(name), lambda t: to_device(t, device))
            for name in self.comparing
        }

        def loss_of(embeddings: dict[str, Tensor]) -> Tensor:
            image, text = embeddings["image"], embeddings["text"]
            scale, bias = model.temperature_scale(), model.logit_bias
            total = image.new_zeros(())
            for name, objective in self.comparing.items():
                compared = ContrastiveBatch(
                    image, text, scale, bias, collated[name], embeddings.get(name)
                )
                loss, parts = objective.batch_loss(compared)
                total = total + objective.weight * loss
                terms[f"{name}/loss"] = loss.detach()
                terms.update({f"{name}/{key}": value for key, value in parts.items()})
            return total

        return loss_of

    def embed(self, part: Part) -> dict[str, Tensor]:
        """Embed one part: name -> (b, E); empty if no objective compares embeddings."""
        if isinstance(part, TextPart):
            return {part.objective: self.embed_text(part)}
        self.seed_part(part)
        return self.encoder.encode(part) if self.comparing else {}

    def embed_text(self, part: TextPart) -> Tensor:
        """Embed further texts: (s, E), the same numbers each time."""
        self.seed_part(part)
        return self.encoder.encode_tokens(part.tokens)

    def embed_with_loss(
        self, part: Part, terms: Terms, asked: Mapping[str, QueryTexts]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Embed one part and compute its share of the losses of single pairs (or None).

        Args:
            part: cases or texts.
            terms: the objectives' terms are added to.
            asked: of :meth:`query_texts`.
        """
        if isinstance(part, TextPart) or not self.on_pairs:
            return self.embed(part), None
        self.seed_part(part)
        features, attention_mask = self.encoder.encode_images(part)
        embeddings = {}
        if self.comparing:
            text = self.encoder.encode_tokens(part.captions)
            embeddings = {"image": features.embedding.float(), "text": text}
        total = torch.zeros((), device=self.encoder.device)
        for name, objective in self.on_pairs.items():
            inputs = self.pair_input(name, part, features.tokens, attention_mask)
            inputs.texts = asked[name].embeddings if name in asked else None
            with self.encoder.autocasting():
                losses = objective.pair_losses(inputs)
            share = losses.sum() / len(part.batch.paired_rows)
            total = total + objective.weight * _noted(terms, f"{name}/loss", share)
        return embeddings, total

    def pair_input(
        self, name: str, part: CasePart, tokens: Tensor, attention_mask: Tensor | None
    ) -> PairInput:
        """Return what an objective gets of some pairs.

        Args:
            name: of the objective.
            part: cases with a report.
            tokens: (b, K, D), encoded image tokens.
            attention_mask: (b, K) bool, False at padding; None if there is none.
        """
        heads = heads_of(self.encoder.model, self.objectives[name])
        return PairInput(part, heads, tokens, attention_mask, part.batch.collated.get(name))

    def image_loss(
        self, name: str, part: CasePart, terms: Terms, observed: dict[str, Tensor]
    ) -> Tensor:
        """Return the weighted loss of a part for an objective that looks at images alone, a scalar.

        Args:
            name: of the objective.
            part: cases, with a report or without.
            terms: the objective's term is added to.
            observed: what the objective observes in the cases is added to.
        """
        self.seed_part(part)
        objective = self.objectives[name]
        inputs = self.image_input(name, part, observed)
        with self.encoder.autocasting():
            losses = objective.image_losses(inputs)
        share = losses.sum() / len(part.batch)
        return objective.weight * _noted(terms, f"{name}/loss", share)

    def image_input(self, name: str, part: CasePart, observed: dict[str, Tensor]) -> ImageInput:
        """Return what an objective gets of some images.

        Args:
            name: of the objective.
            part: cases, with a report or without.
            observed: what the objective observes in the cases is added to.
        """
        model = self.encoder.model
        image, body, _ = self.encoder.image_and_body(part)
        return ImageInput(
            part,
            model.image_encoder,
            heads_of(model, self.objectives[name]),
            image,
            body,
            self.encoder.air,
            part.batch.collated.get(name),
            observed,
        )


def _kind(part: Part) -> Any:
    return part.objective if isinstance(part, TextPart) else CasePart


def _noted(terms: Terms, name: str, share: Tensor) -> Tensor:
    """Add a part's share to the batch's term, and return it."""
    terms[name] = terms.get(name, torch.zeros_like(share)).detach() + share.detach()
    return share
