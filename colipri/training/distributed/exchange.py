"""The embeddings of a batch that several processes encode, brought together in every process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from colipri.training.distributed.processes import Processes
from colipri.training.grad_cache import Places


@dataclass(frozen=True)
class SharedEmbeddings:
    """Which rows of the global batch's embeddings this process has.

    All processes add up arrays of the size of the global batch in which the rows of others are
    zero. That gives every row exactly, whatever number of rows each process has (none, too), and
    embeddings are small: 512 cases of 768 dimensions are 1.5 MB.

    Attributes:
        processes: of the training.
        rows: name -> rows of the global batch.
        places: per part of this process and name its rows; None for a part that does not count.
        width: of the embeddings.
        device, dtype: of the embeddings.
    """

    processes: Processes
    rows: dict[str, int]
    places: Places
    width: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def counts(self) -> bool:
        """The comparing loss is the same in all processes; process 0 adds it to the sum."""
        return self.processes.rank == 0

    def joined(self, parts: Sequence[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Places]:
        """See colipri.training.grad_cache.Exchange."""
        whole = {
            name: torch.zeros(rows, self.width, device=self.device, dtype=self.dtype)
            for name, rows in self.rows.items()
        }
        for part, place in zip(parts, self.places, strict=True):
            for name, embedded in part.items():
                if place is not None:
                    whole[name][place[name]] = embedded
        for embeddings in whole.values():
            self.processes.sum(embeddings)
        return whole, self.places
