"""Reading ahead: the next volumes are read in the background while one is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from colipri.common.errors import ColipriError
from colipri.inference.volume import PreparedVolume

Made = TypeVar("Made")
_READ_AHEAD = 2  # volumes at a time


def read_ahead(makers: Iterable[Callable[[], Made]], at_once: int = 1) -> Iterator[Future[Made]]:
    """Call ``makers`` in background threads, two (or the next batch) ahead of whoever iterates.

    Args:
        makers: each makes a volume.
        at_once: volumes of a batch.
    """
    remaining = iter(makers)
    ahead = max(_READ_AHEAD, at_once)
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        waiting = [pool.submit(make) for make in islice(remaining, ahead)]
        try:
            while waiting:
                yield waiting.pop(0)
                waiting += [pool.submit(make) for make in islice(remaining, 1)]
        finally:
            for future in waiting:
                future.cancel()


def in_batches(items: Iterator[Made], size: int) -> Iterator[list[Made]]:
    """Yield lists of at most ``size`` items, in order."""
    while batch := list(islice(items, size)):
        yield batch


def result_or_error(future: Future[PreparedVolume]) -> PreparedVolume | ColipriError:
    """Return the volume that a maker made, or the error that says why it could not."""
    try:
        return future.result()
    except ColipriError as error:
        return error
