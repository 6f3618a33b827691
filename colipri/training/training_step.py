"""The gradients of all objectives on one batch.

A batch is cut into parts (colipri.training.batch_parts), and losses are computed part by part
(colipri.training.part_losses) or on the embeddings of all parts (colipri.training.grad_cache). The
sum over all processes is what one process computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from colipri.objectives.base import FinishedStep
from colipri.objectives.batch import Batch, CasePart, TextPart
from colipri.objectives.registry import heads_of
from colipri.training.batch_parts import AssignedPart, Part
from colipri.training.distributed.gradient_exchange import GradientExchange
from colipri.training.grad_cache import grad_cache_backward
from colipri.training.part_losses import PartLosses, Terms
from colipri.training.query_texts import QueryTexts


class TrainingStep(PartLosses):
    """The weighted objectives of a run, applied to batches.

    Arguments: see :class:`colipri.training.batch_parts.BatchParts`.

    Attributes:
        observed: what objectives observed in the last batch, added up over all processes.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
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
        images = {name: self.image_parts(name, batch, seed) for name in self.on_images}
        self.observed = {name: self.nothing_observed(name) for name in self.on_images}
        total = torch.zeros((), device=self.encoder.device)
        own = {  # of objectives that look at each case by itself: shares add up to the batch's
            f"{name}/loss": torch.zeros_like(total)
            for name in self.objectives
            if (name in self.on_pairs and pairs) or name in self.on_images
        }
        asked = self.query_texts(batch, seed) if pairs else {}
        mine, embeddings = self.assign(pairs, texts if pairs else [])
        exchange = self.gradient_exchange(mine, asked, images)
        if pairs:
            self.encoder.images.expect(assigned.part for assigned in mine)
            one_of_each = len({_kind(assigned.part) for assigned in mine}) == len(mine)
            total = total + grad_cache_backward(
                mine,
                lambda assigned: self.embed(assigned.part),
                self.comparison(batch, terms),
                self.encoder.device,
                lambda assigned: self.embed_in_last_pass(assigned, own, asked, exchange),
                one_pass=one_of_each and not self.shard.pad,
                exchange=embeddings,
            )
            self.backward_through_texts(asked, exchange)
        for name, parts in images.items():
            total = total + self.backward_of_images(name, parts, own, exchange)
        sums = self.processes.sum(torch.stack([total, *own.values()]))
        terms.update(zip(own, sums[1:], strict=True))
        for observed in self.observed.values():
            for value in observed.values():
                self.processes.sum(value)
        self.processes.sum_gradients(self.encoder.model.parameters())
        return sums[0]

    def embed_in_last_pass(
        self,
        assigned: AssignedPart,
        terms: Terms,
        asked: Mapping[str, QueryTexts],
        exchange: GradientExchange,
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As :meth:`embed_with_loss`, in the pass whose gradients count.

        Args:
            assigned: the part.
            terms: the objectives' terms are added to, unless the part is padding.
            asked: of :meth:`query_texts`.
            exchange: of the step.
        """
        exchange.begin_pass()
        return self.embed_with_loss(assigned.part, terms if assigned.is_counted else {}, asked)

    def backward_through_texts(
        self, asked: Mapping[str, QueryTexts], exchange: GradientExchange
    ) -> None:
        """Send gradients of the cases through the texts that they were asked with."""
        for texts in asked.values():
            texts.backward(self.embed_text, self.processes, exchange.begin_pass)

    def backward_of_images(
        self, name: str, parts: Sequence[CasePart], terms: Terms, exchange: GradientExchange
    ) -> Tensor:
        """Add the gradients of an objective that looks at images alone.

        Args:
            name: of the objective.
            parts: of the batch.
            terms: the objective's term is added to.
            exchange: of the step.

        Returns:
            The weighted loss of this process's parts, detached.
        """
        total = torch.zeros((), device=self.encoder.device)
        mine = self.shard.of(len(parts))
        self.encoder.images.expect(parts[number] for number, _ in mine)
        for number, is_counted in mine:
            exchange.begin_pass()
            observed = self.observed[name] if is_counted else self.nothing_observed(name)
            loss = self.image_loss(name, parts[number], terms if is_counted else {}, observed)
            (loss if is_counted else 0.0 * loss).backward()
            total = total + loss.detach() if is_counted else total
        return total

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


def _kind(part: Part) -> Any:
    return part.objective if isinstance(part, TextPart) else CasePart
