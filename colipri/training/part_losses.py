"""What is computed on a part of a batch: embeddings, and the losses of single cases.

Random numbers are seeded for each part from its place in the global batch, and every loss is
divided by the size of the global batch, so the sum over all parts and processes is the batch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from colipri.architectures.packing import to_device
from colipri.common.hashing import derive_seed
from colipri.dataloading.sharing import Shard
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
from colipri.training.batch_encoder import EncodedImages
from colipri.training.batch_parts import BatchParts, Part
from colipri.training.distributed.processes import Processes
from colipri.training.query_texts import QueryTexts

Terms = dict[str, Tensor]


class PartLosses(BatchParts):
    """Embeds parts and computes their losses; arguments as of :class:`BatchParts`."""

    def seed_part(self, part: Part) -> None:
        """Make drop path and dropout of a part a function of its place in the global batch."""
        if self.encoder.model.training:
            torch.manual_seed(derive_seed(part.seed, "forward"))

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
        encoded = self.encoder.encode_images(part)
        embeddings = {}
        if self.comparing:
            text = self.encoder.encode_tokens(part.captions)
            embeddings = {"image": encoded.features.embedding.float(), "text": text}
        total = torch.zeros((), device=self.encoder.device)
        for name, objective in self.on_pairs.items():
            inputs = self.pair_input(name, part, encoded)
            inputs.texts = asked[name].embeddings if name in asked else None
            with self.encoder.autocasting():
                losses = objective.pair_losses(inputs)
            share = losses.sum() / len(part.batch.paired_rows)
            total = total + objective.weight * _noted(terms, f"{name}/loss", share)
        return embeddings, total

    def pair_input(self, name: str, part: CasePart, encoded: EncodedImages) -> PairInput:
        """Return what an objective gets of some pairs.

        Args:
            name: of the objective.
            part: cases with a report.
            encoded: their images.
        """
        objective = self.objectives[name]
        return PairInput(
            part,
            heads_of(self.encoder.model, objective),
            encoded.features.tokens,
            encoded.attention_mask,
            part.batch.collated.get(name),
            ids_keep=encoded.ids_keep,
            label=self.encoder.labels_of(part) if objective.reads_label_maps else None,
            token_patch=tuple(self.encoder.configuration.token_patch_size),
            embed_tokens=partial(self.encoder.embed_tokens, encoded),
        )

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
            self.encoder.labels_of(part) if self.objectives[name].reads_label_maps else None,
        )

    def nothing_observed(self, name: str) -> dict[str, Tensor]:
        """Return zeros of what an objective observes in the cases of a batch."""
        objective = self.objectives[name]
        return objective.observed(heads_of(self.encoder.model, objective))


def _noted(terms: Terms, name: str, share: Tensor) -> Tensor:
    """Add a part's share to the batch's term, and return it."""
    terms[name] = terms.get(name, torch.zeros_like(share)).detach() + share.detach()
    return share
