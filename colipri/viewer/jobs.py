"""Work that takes seconds to minutes, one piece at a time, and what the page shows of it.

The model computes on all cores or on the whole GPU, so two requests at once would only be slower
and could run out of memory. A page that is closed does no harm: what has begun is finished and
kept, and what has not begun is dropped when nobody has asked for it for a while.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, DROPPED = "waiting", "running", "done", "failed", "dropped"
_MOST_WAITING = 32
_KEPT = 200  # finished jobs that can still be asked for
# Browsers slow the timers of hidden tabs down to one a minute
_FORGOTTEN_SECONDS = 300.0

Note = Callable[[str], None]
Work = Callable[[Note], Any]


@dataclass
class Job:
    """A piece of work.

    Attributes:
        identifier: cannot be guessed.
        title: for people.
        state: waiting, running, done, failed or dropped.
        step: what it is doing now.
        result: of the work, once done.
        error: one line, once failed.
    """

    title: str
    work: Work = field(repr=False)
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = WAITING
    step: str = ""
    result: Any = None
    error: str = ""
    asked: float = field(default_factory=time.monotonic)
    began: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if self.began is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.began


class QueueFullError(ColipriError):
    """More work is waiting than anyone can want."""


class JobQueue:
    """Runs jobs in order, in one thread.

    Args:
        name: of the thread.
        forgotten_after: seconds after which a waiting job that nobody asks for is dropped.
    """

    def __init__(self, name: str, forgotten_after: float = _FORGOTTEN_SECONDS) -> None:
        self._forgotten_after = forgotten_after
        self._waiting: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._change = threading.Condition()
        self._closed = False
        # A daemon: Ctrl-C need not wait for the scan that is being encoded
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, title: str, work: Work) -> Job:
        """Add a job.

        Args:
            title: for people.
            work: called with a function that takes one line of progress.

        Raises:
            QueueFullError: too much is waiting.
        """
        with self._change:
            if len(self._waiting) >= _MOST_WAITING:
                raise QueueFullError("too much is waiting already; try again when it is done")
            job = Job(title, work)
            self._waiting.append(job)
            self._jobs[job.identifier] = job
            self._forget_old()
            self._change.notify()
        return job

    def find(self, identifier: str) -> Job | None:
        """Return a job, and remember that someone wants it."""
        job = self._jobs.get(identifier)
        if job is not None:
            job.asked = time.monotonic()
        return job

    def drop(self, identifier: str) -> None:
        """Drop a job that has not begun."""
        with self._change:
            job = self._jobs.get(identifier)
            if job is not None and job in self._waiting:
                self._waiting.remove(job)
                job.state = DROPPED

    def ahead_of(self, job: Job) -> int:
        """Return how many jobs come before a waiting one."""
        with self._change:
            running = sum(one.state == RUNNING for one in self._jobs.values())
            return running + (self._waiting.index(job) if job in self._waiting else 0)

    def close(self) -> None:
        """Begin no further job."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify()

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.state in (DONE, FAILED, DROPPED)]
        for job in ended[: max(0, len(ended) - _KEPT)]:
            del self._jobs[job.identifier]

    def _next(self) -> Job | None:
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            job = self._waiting.popleft()
            forgotten = time.monotonic() - job.asked > self._forgotten_after
            job.state = DROPPED if forgotten else RUNNING
            return job

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if job.state == RUNNING:
                _do(job)


def _do(job: Job) -> None:
    def note(step: str) -> None:
        job.step = step

    job.began = time.monotonic()
    state = FAILED
    try:
        job.result = job.work(note)
        state = DONE
    except ColipriError as error:
        job.error = str(error)
    except MemoryError:
        job.error = "this machine has not enough memory for it"
    except Exception as error:
        logger.debug("%s failed", job.title, exc_info=True)
        job.error = f"unexpected {type(error).__name__}: {error}"
    job.ended = time.monotonic()
    job.state = state
