"""How a batch is cut into parts that fit in memory, and which of them this process computes.

Each part is one forward pass:

* cases with a report: image and caption are embedded for the objectives that compare, and those
  that look at pairs read the tokens of the same forward pass;
* further texts of the objectives that compare;
* all cases, once for every objective that looks at images alone. These passes are not shared:
  masked image modelling hides three quarters of the tokens, so three reports in four would mention
  a nodule of one token that the encoder has not seen.

Several processes share the parts of each kind (colipri.dataloading.sharing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from colipri.common.hashing import derive_seed
from colipri.dataloading.sharing import Shard
from colipri.objectives.base import IMAGE_ENCODER, SHARED_SPACE, Objective
from colipri.objectives.batch import Batch, CasePart, TextPart
from colipri.objectives.registry import heads_of
from colipri.training.batch_encoder import BatchEncoder
from colipri.training.distributed.gradient_exchange import GradientExchange
from colipri.training.distributed.processes import Processes
from colipri.training.grad_cache import SharedEmbeddings
from colipri.training.query_texts import QueryTexts

Part = CasePart | TextPart
TEXT_ENCODER = "text_encoder"


@dataclass(frozen=True)
class AssignedPart:
    """A part of this process, and its rows among the batch's embeddings (None: padding)."""

    part: Part
    rows: dict[str, slice] | None

    @property
    def is_counted(self) -> bool:
        """True if its losses count."""
        return self.rows is not None


class BatchParts:
    """The parts of the batches of a run.

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

    def gradient_exchange(
        self,
        mine: Sequence[AssignedPart],
        asked: Mapping[str, QueryTexts],
        images: Mapping[str, Sequence[CasePart]],
    ) -> GradientExchange:
        """Return what tells sharded parts of the model in which pass they exchange gradients.

        Args:
            mine: this process's parts with texts, in the order of their passes.
            asked: texts that losses of single cases ask with; their passes come next.
            images: name of an objective -> the parts of its own passes, which come last.
        """
        model = self.encoder.model
        of_cases = {IMAGE_ENCODER, *(SHARED_SPACE if self.comparing else ())}
        for objective in self.on_pairs.values():
            of_cases |= set(heads_of(model, objective))
        passes = [of_cases if isinstance(one.part, CasePart) else {TEXT_ENCODER} for one in mine]
        passes += [{TEXT_ENCODER} for texts in asked.values() for _ in texts.mine]
        for name, parts in images.items():
            reached = {IMAGE_ENCODER, *heads_of(model, self.objectives[name])}
            passes += [reached] * len(self.shard.of(len(parts)))
        return GradientExchange(model, passes)
