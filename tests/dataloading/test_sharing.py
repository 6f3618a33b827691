"""What each of several processes reads and computes of a global batch that all of them know."""

from __future__ import annotations

import pytest

from colipri.dataloading.sharing import Shard, cut, rows_to_load, shared_part_size


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 10])
def test_every_part_counts_once(size: int, count: int) -> None:
    for pad in (False, True):
        shards = [Shard(rank, size, pad).of(count) for rank in range(size)]
        assert sorted(n for parts in shards for n, counts in parts if counts) == list(range(count))
        assert all(0 <= number < count for parts in shards for number, _ in parts)
        lengths = {len(parts) for parts in shards}
        assert len(lengths) == 1 if pad else max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("batch", [1, 4, 5, 16, 37])
@pytest.mark.parametrize("limit", [1, 3, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_parts_fit_in_memory_and_no_process_does_much_more(
    batch: int, limit: int, processes: int
) -> None:
    size = shared_part_size(batch, limit, processes)
    assert 1 <= size <= limit
    parts = cut(range(batch), size)
    assert [row for part in parts for row in part] == list(range(batch))
    if processes == 1:
        assert size == min(limit, batch)
    rounds = -(-len(parts) // processes)  # no more than the best there is
    assert rounds == -(-batch // (processes * limit))


def test_each_image_is_read_by_one_process() -> None:
    has_report = [True] * 5 + [False] * 4
    for pairs, alone, expected in ((True, True, 9), (True, False, 5), (False, True, 9)):
        rows = [rows_to_load(has_report, 2, Shard(rank, 3), pairs, alone) for rank in range(3)]
        assert set().union(*rows) == set(range(expected))
        assert sum(map(len, rows)) == expected  # pairs and all rows are cut alike
