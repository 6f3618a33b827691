"""Items that are made on the way: in order, few ahead, problems apart, dead workers noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from parallel_work import die, large_result, slow_square

from colipri.common.errors import ColipriError
from colipri.common.parallel import stream_parallel


@pytest.mark.parametrize("num_processes", [1, 2])
def test_outcomes_come_in_order(num_processes: int) -> None:
    outcomes = list(stream_parallel(slow_square, iter(range(40)), num_processes, "test"))
    assert [outcome.item for outcome in outcomes] == list(range(40))
    assert outcomes[3].problem == "three is refused" and outcomes[3].result is None
    assert [o.result for o in outcomes if o.item != 3] == [n * n for n in range(40) if n != 3]


@pytest.mark.parametrize(("num_processes", "ahead"), [(1, 1), (2, 8)])
def test_few_items_are_taken_ahead(num_processes: int, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:  # an archive without end
            taken += 1
            yield taken

    stream = stream_parallel(slow_square, items(), num_processes, "test")
    for done, _ in enumerate(stream, start=1):
        assert taken <= done + ahead
        if done == 50:
            break
    stream.close()  # type: ignore[attr-defined]


def test_a_dead_worker_is_an_error() -> None:
    with pytest.raises(ColipriError, match="a worker process died during 'test'"):
        list(stream_parallel(die, range(20), 2, "test"))


def test_a_worker_that_dies_while_sending_is_an_error() -> None:
    with pytest.raises(ColipriError, match=r"fewer processes \(-np\)"):
        list(stream_parallel(large_result, range(2), 2, "test"))
