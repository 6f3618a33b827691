"""Texts that losses of single cases ask with: encoded before the images, learned after them.

An objective such as sentence queries compares every case with texts of the whole batch. The texts
are encoded first, without a graph and by all processes together; every case computes with their
embeddings; the gradients of all cases add up at the embeddings, and are sent through the text
encoder at the end, part by part. So each text is encoded twice, however many cases ask with it, and
its gradient is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from colipri.dataloading.sharing import Shard
from colipri.objectives.batch import TextPart
from colipri.training.distributed.processes import Processes

Encode = Callable[[TextPart], Tensor]


@dataclass
class QueryTexts:
    """Embeddings of an objective's texts, and what is needed to learn them.

    Attributes:
        embeddings: (S, E); a leaf, whose gradient adds up over the cases.
        mine: parts of this process, with their rows and whether they count.
    """

    embeddings: Tensor
    mine: list[tuple[TextPart, slice, bool]]

    @classmethod
    @torch.no_grad()
    def encode(
        cls,
        parts: Sequence[TextPart],
        encode: Encode,
        width: int,
        device: torch.device,
        processes: Processes,
        shard: Shard,
        dtype: torch.dtype = torch.float32,
    ) -> QueryTexts:
        """Encode all texts without a graph; every process its parts.

        Args:
            parts: of the batch.
            encode: (s, E) embeddings of a part; the same each time it is called.
            width: E.
            device: of the embeddings.
            processes: that share the parts.
            shard: which of them belong to this process.
            dtype: of the embeddings.
        """
        ends = [0, *accumulate(part.count for part in parts)]
        mine = [
            (parts[number], slice(ends[number], ends[number + 1]), is_counted)
            for number, is_counted in shard.of(len(parts))
        ]
        embeddings = torch.zeros(ends[-1], width, device=device, dtype=dtype)
        for part, rows, is_counted in mine:
            embedded = encode(part)
            if is_counted:
                embeddings[rows] = embedded
        processes.sum(embeddings)
        return cls(embeddings.requires_grad_(), mine)

    def backward(self, encode: Encode, processes: Processes, before: Callable[[], None]) -> None:
        """Send the gradients of all cases of all processes through the text encoder.

        Args:
            encode: as in :meth:`encode`, now with a graph.
            processes: that share the cases.
            before: called before each part is encoded.
        """
        gradient = self.embeddings.grad
        if gradient is None:  # this process asked nothing
            gradient = torch.zeros_like(self.embeddings)
        processes.sum(gradient)
        for part, rows, is_counted in self.mine:
            before()
            embedded = encode(part)
            if embedded.requires_grad:  # not of a frozen tower
                embedded.backward(gradient[rows] if is_counted else torch.zeros_like(embedded))
