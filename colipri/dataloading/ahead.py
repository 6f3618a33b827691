"""The next batch is put together by a thread while the present one is computed on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
_JOIN_SECONDS = 30.0


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of ``items``, with the next one being made in a thread.

    At most one item exists besides the one that was yielded last. Exceptions of ``items`` are
    raised here. Closing the generator closes ``items`` as well.

    Args:
        items: a generator; only the thread touches it.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue()
    wanted, stopped = threading.Semaphore(1), threading.Event()
    thread = threading.Thread(
        target=_make, args=(items, ready, wanted, stopped), name="batches", daemon=True
    )
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            wanted.release()
            yield item
    finally:
        stopped.set()
        wanted.release()
        thread.join(_JOIN_SECONDS)


def _make(
    items: Iterator[Item],
    ready: queue.Queue[tuple[Item | None, BaseException | None]],
    wanted: threading.Semaphore,
    stopped: threading.Event,
) -> None:
    try:
        while True:
            wanted.acquire()
            if stopped.is_set():
                break
            item = next(items, None)
            ready.put((item, None))
            if item is None:
                break
    except BaseException as error:  # noqa: BLE001 - raised again where the items are taken
        ready.put((None, error))
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
