"""Which process computes what of a batch that several processes share.

The order of data knows nothing of processes: every process draws the same global batch and cuts it
into the same parts (micro batches), and part k belongs to process k modulo their number. A part is
also the unit of randomness (augmentation, drop path), so W processes compute exactly what one
process computes. Texts are small and all processes read all of them; images are read only by the
process that encodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from colipri.dataloading.sampler import EndlessSampler, SampleKey

RowsHere = Callable[[list[SampleKey]], Collection[int]]


@dataclass(frozen=True)
class Shard:
    """The parts of this process.

    Attributes:
        rank: number of this process.
        size: how many there are.
        pad: give every process equally many parts. Sharded weights are exchanged in every pass, so
            all must make the same passes; what a process computes beyond its own parts is thrown
            away, in time that it would have waited.
    """

    rank: int = 0
    size: int = 1
    pad: bool = False

    def of(self, count: int) -> list[tuple[int, bool]]:
        """Return the numbers of this process's parts out of ``count``; False marks padding.

        Example:
            >>> Shard(1, 2).of(3)
            [(1, True)]
            >>> Shard(1, 2, pad=True).of(3)
            [(1, True), (1, False)]
        """
        mine = [(number, True) for number in range(self.rank, count, self.size)]
        if self.pad and count:
            padding = mine[0][0] if mine else 0
            mine += [(padding, False)] * (-(-count // self.size) - len(mine))
        return mine


def cut(rows: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Cut rows into parts of ``size``; the last one may be smaller."""
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def shared_part_size(batch_size: int, limit: int, processes: int) -> int:
    """Return the rows of a part, so that processes have equally many parts if possible.

    Args:
        batch_size: of the global batch.
        limit: rows that fit in memory at once.
        processes: how many share the batch.

    Example:
        >>> shared_part_size(16, 8, 1), shared_part_size(16, 8, 4), shared_part_size(16, 4, 3)
        (8, 4, 3)
    """
    if processes == 1:
        return min(limit, batch_size)
    rounds = -(-batch_size // (processes * limit))
    return -(-batch_size // (processes * rounds))


def rows_to_load(
    has_report: Sequence[bool], part_size: int, shard: Shard, pairs: bool, alone: bool
) -> set[int]:
    """Return the rows of a global batch whose images this process encodes.

    Args:
        has_report: of each row.
        part_size: rows of a part.
        shard: of this process.
        pairs: an objective encodes the rows with a report, by themselves.
        alone: an objective encodes all rows.
    """
    cuts = []
    if pairs:
        cuts.append(cut([row for row, found in enumerate(has_report) if found], part_size))
    if alone:
        cuts.append(cut(range(len(has_report)), part_size))
    return {row for parts in cuts for number, _ in shard.of(len(parts)) for row in parts[number]}


class SharedBatchSampler(EndlessSampler):
    """The same global batches, with a mark at the samples whose images are not needed here.

    Args:
        sampler: of the global batches.
        rows_here: which rows of a batch need their images.
    """

    def __init__(self, sampler: EndlessSampler, rows_here: RowsHere) -> None:
        self.sampler = sampler
        self.rows_here = rows_here
        self.seed = sampler.seed
        self.batch_size = sampler.batch_size

    def batch(self, position: int) -> list[SampleKey]:
        """Batch number ``position``; the first is read whole, fresh models start from it."""
        keys = self.sampler.batch(position)
        here = range(len(keys)) if position == 0 else self.rows_here(keys)
        return [key if row in here else key._replace(image=False) for row, key in enumerate(keys)]
