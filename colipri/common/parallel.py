"""Cases in parallel: problems are collected by case, a dead worker is an error and not a hang.

This is the standard library's pool with one addition (``_notice_deaths``). joblib's loky is not a
replacement: it notices a worker that dies while it works, but waits for ever for one that is killed
in the middle of sending a large result (loky of joblib 1.6; tests/common/test_stream_parallel.py).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from colipri.common.cluster import on_cluster, run_on_cluster
from colipri.common.cpus import usable_cpus
from colipri.common.disk import DiskFullError, is_full, shared_memory_error, write_error
from colipri.common.display import progress
from colipri.common.errors import ColipriError

Item = TypeVar("Item")
Result = TypeVar("Result")
DEATH_CHECK_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What came of one item: ``result``, or ``problem`` (one line) with its traceback."""

    item: Item
    result: Result | None
    problem: str | None = None
    details: str | None = None  # the traceback, for --verbose
    disk_full: bool = False  # no fault of the item: the whole run ends


def default_num_processes() -> int:
    """Return nnU-Net's ``nnUNet_def_n_proc`` if it is set, otherwise the usable CPUs, at most 8."""
    from_environment = os.environ.get("nnUNet_def_n_proc")
    if from_environment:
        return max(1, int(from_environment))
    return min(8, usable_cpus())


def run_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_processes: int,
    description: str,
) -> Iterator[Outcome[Item, Result]]:
    """Yield the outcome of ``function(item)`` for every item, in the order in which they finish.

    Exceptions inside ``function`` become outcomes with a ``problem``; the caller decides whether to
    stop. With one process everything runs here, which is easier to debug. Processes are spawned,
    not forked: forking after OpenMP or torch threads exist can hang. ``function`` must therefore be
    importable (a module-level function or functools.partial of one).

    Inside of colipri.common.cluster.cluster the workers of a cluster do it instead.

    Args:
        function: Called with one item; a module-level function or functools.partial of one.
        items: One call each.
        num_processes: 1 runs everything in this process.
        description: Of the progress bar.

    Raises:
        ColipriError: a worker process died (usually: out of memory), or a device is full; what is
            finished stays.
    """
    if on_cluster():
        outcomes = run_on_cluster(partial(_run_one, function), items)
        for outcome in progress(outcomes, description, total=len(items)):
            yield _not_full(outcome)
        return
    if num_processes <= 1 or len(items) <= 1:
        for item in progress(items, description, total=len(items)):
            yield _not_full(_run_one(function, item))
        return
    with _worker_pool(min(num_processes, len(items)), description) as executor:
        futures: list[Future[Outcome[Item, Result]]] = [
            executor.submit(_run_one, function, item) for item in items
        ]
        for future in progress(as_completed(futures), description, total=len(items)):
            yield _not_full(future.result())


def stream_parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_processes: int,
    description: str,
) -> Iterator[Outcome[Item, Result]]:
    """As :func:`run_parallel`, for items that are made on the way and never all in memory.

    Outcomes come in the order of ``items``; only a few items a process are taken ahead.

    Args:
        function: As for :func:`run_parallel`.
        items: Taken one after the other.
        num_processes: 1 runs everything in this process.
        description: Of the progress bar.

    Raises:
        ColipriError: a worker process died.
    """
    if num_processes <= 1:
        for item in progress(items, description):
            yield _not_full(_run_one(function, item))
        return
    waiting: deque[Future[Outcome[Item, Result]]] = deque()
    with _worker_pool(num_processes, description) as executor:
        for item in progress(items, description):
            waiting.append(executor.submit(_run_one, function, item))
            if len(waiting) >= 4 * num_processes:
                yield _not_full(waiting.popleft().result())
        while waiting:
            yield _not_full(waiting.popleft().result())


@contextmanager
def _worker_pool(num_processes: int, description: str) -> Iterator[ProcessPoolExecutor]:
    """Spawned workers that end with the block, however it ends; a dead one is a ColipriError."""
    context = multiprocessing.get_context("spawn")
    try:
        executor = ProcessPoolExecutor(num_processes, context, initializer=_prepare_worker)
    except OSError as error:  # semaphores of processes are files in /dev/shm
        raise shared_memory_error("worker processes cannot be started", error) from error
    ended = threading.Event()
    writing_end: Connection = executor._result_queue._writer  # type: ignore[attr-defined]
    watched = (executor._processes, writing_end, ended)
    watcher = threading.Thread(target=_notice_deaths, args=watched, daemon=True)
    watcher.start()
    try:
        yield executor
    except KeyboardInterrupt:  # at once, not after the items that the workers have begun
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    except BrokenProcessPool as error:
        ended.set()
        watcher.join()  # it may be closing the pipe that the executor closes below
        executor.shutdown()  # the other workers are being ended; none may write on
        raise ColipriError(
            f"a worker process died during '{description}' (out of memory?); finished cases are "
            "kept: run the same command again, with fewer processes (-np)"
        ) from error
    finally:
        ended.set()
        executor.shutdown(wait=False, cancel_futures=True)


def _notice_deaths(
    workers: Mapping[int, BaseProcess], results: Connection, ended: threading.Event
) -> None:
    """Let the executor see the end of a worker that died in the middle of sending a result.

    The executor then reads the rest of that result for ever, because the other workers and this
    process keep the pipe's writing end open; without any writer the read fails and the pool is
    broken, as it is after every other death.
    """
    seen = False
    while not ended.wait(DEATH_CHECK_SECONDS):
        died = any(worker.exitcode is not None for worker in list(workers.values()))
        if died and seen:  # the executor had its time to notice by itself
            for worker in list(workers.values()):
                worker.terminate()
            results.close()
            return
        seen = died


def _prepare_worker() -> None:
    """One thread per worker: the processes are the parallelism."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _not_full(outcome: Outcome[Any, Any]) -> Outcome[Any, Any]:
    """The outcome, unless a full device is to blame.

    Raises:
        DiskFullError: it is.
    """
    if outcome.disk_full:
        raise DiskFullError(outcome.problem or "a device is full")
    return outcome


def _run_one(function: Callable[[Any], Any], item: Any) -> Outcome[Any, Any]:
    try:
        return Outcome(item, function(item))
    except DiskFullError as error:
        return Outcome(item, None, str(error), traceback.format_exc(), disk_full=True)
    except OSError as error:
        if not is_full(error):
            return Outcome(item, None, f"{type(error).__name__}: {error}", traceback.format_exc())
        problem = str(write_error(error.filename or tempfile.gettempdir(), error))
        return Outcome(item, None, problem, traceback.format_exc(), disk_full=True)
    except ColipriError as error:
        return Outcome(item, None, str(error), traceback.format_exc())
    except Exception as error:
        return Outcome(item, None, f"{type(error).__name__}: {error}", traceback.format_exc())
