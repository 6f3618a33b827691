"""Cases on the workers of a dask cluster, instead of processes on this machine.

Dask's own client and not joblib's dask backend: that one waits for ever for a task whose worker
died (joblib 1.6), and takes a cluster with a single worker for this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError

BACKENDS = ("local", "dask")
_WAIT_SECONDS = 300.0  # for a scheduler and a first worker that are started at the same time
_PREFIX = "colipri_"  # environment variables that workers take from here: the three folders
_client_in_use: ContextVar[Any] = ContextVar("colipri_cluster", default=None)


def on_cluster() -> bool:
    """True inside of :func:`cluster` with a backend that is not local."""
    return _client_in_use.get() is not None


@contextmanager
def cluster(backend: str = "local", scheduler: str | None = None) -> Iterator[None]:
    """Let the workers of a cluster do what colipri.common.parallel.run_parallel is given inside.

    Workers need this package and the same folders under the same paths (a shared file system);
    where the three folders are is sent along.

    Args:
        backend: "local" (nothing changes) or "dask".
        scheduler: address of dask's scheduler ("tcp://host:8786"), or the file that dask's
            ``--scheduler-file`` names.

    Raises:
        ColipriError: dask is not installed, no address, or no scheduler or worker answers.
    """
    if backend == "local":
        if scheduler is not None:
            raise ColipriError("--scheduler belongs to a cluster: add --backend dask")
        yield
        return
    if scheduler is None:
        raise ColipriError(f"--backend {backend} needs the --scheduler that its workers know")
    with _client(scheduler) as client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_SECONDS)
        except TimeoutError as error:
            raise ColipriError(
                f"the scheduler {scheduler} has no workers after {_WAIT_SECONDS:g} s; start some "
                "(dask worker)"
            ) from error
        token = _client_in_use.set(client)
        try:
            yield
        finally:
            _client_in_use.reset(token)


def run_on_cluster(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield ``function`` of every item, in the order in which they finish.

    Raises:
        ColipriError: workers died over and over, or the scheduler is gone.
    """
    from distributed import KilledWorker, as_completed
    from distributed.comm.core import CommClosedError

    client = _client_in_use.get()
    variables = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    upcoming = iter(items)
    running: set[Any] = set()
    finished = as_completed(loop=client.loop)
    try:
        while True:
            # a few ahead for each thread; more workers may have come since
            wanted = 2 * sum(client.nthreads().values()) - len(running)
            for item in islice(upcoming, max(wanted, 0 if running else 1)):
                future = client.submit(_with_variables, variables, function, item, pure=False)
                running.add(future)
                finished.add(future)
            if not running:
                return
            future = next(finished)
            running.remove(future)
            yield future.result()
    except KilledWorker as error:
        raise ColipriError(
            f"dask workers died while they worked on a case (out of memory?): {error}; finished "
            "cases are kept: run the same command again, with fewer workers per machine"
        ) from error
    except (CommClosedError, CancelledError, OSError) as error:
        raise ColipriError(
            f"the connection to dask's scheduler broke ({error}); finished cases are kept: run the "
            "same command again"
        ) from error
    finally:
        if running and client.status == "running":
            client.cancel(list(running))


def _with_variables(variables: dict[str, str], function: Callable[[Any], Any], item: Any) -> Any:
    os.environ.update(variables)
    return function(item)


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ColipriError(
            "dask is not installed here and on the workers: pip install 'dask[distributed]'"
        ) from error
    address = scheduler if "://" in scheduler else _address_in(Path(scheduler))
    try:
        client = Client(address, timeout=_WAIT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ColipriError(f"no dask scheduler answers at {scheduler}: {error}") from error
    try:
        yield client
    finally:
        client.close()


def _address_in(file: Path) -> str:
    """The address in a scheduler file, which may only be about to be written."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not file.is_file():
        if time.monotonic() > deadline:
            raise ColipriError(f"no dask scheduler answers at {file}: the file does not exist")
        time.sleep(0.1)
    return str(read_json(file)["address"])
