"""A log line when a training becomes much slower than it was at its start.

A run that was planned for a night and needs a week looks the same from outside: other programs take
the cores, a disk fills up, a GPU is throttled. The log says so when it happens, and where to look.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from colipri.common.cpus import usable_cpus

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 3  # compilation, caches, the first files
COMPARED_STEPS = (
    20  # medians of so many: single slow steps (a checkpoint, a page of disk) are normal
)
FAR_SLOWER = 2.5
RECOVERED = 1.5


class SpeedWatch:
    """Compares the seconds of recent steps with those of the first ones.

    Seconds are counted per unit of work, so that steps which see more tokens are not called slow.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._waited = 0.0
        self._begun: float | None = None
        self._steps = 0
        self._first: list[tuple[float, float]] = []
        self._recent: deque[tuple[float, float]] = deque(maxlen=COMPARED_STEPS)
        self._is_slow = False

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Begin a step; what runs inside is the wait for its batch."""
        self._begun = self._clock()
        yield
        self._waited = self._clock() - self._begun

    def after_step(self, work: float) -> str | None:
        """Log one warning when steps become far slower, and one line when they have recovered.

        Args:
            work: of the step, in any unit that does not change (FLOPs).

        Returns:
            The line that was logged, if any.
        """
        if self._begun is None or work <= 0:
            return None
        seconds = self._clock() - self._begun
        self._steps += 1
        if self._steps <= WARM_UP_STEPS:
            return None
        step = (seconds / work, self._waited / seconds if seconds > 0 else 0.0)
        if len(self._first) < COMPARED_STEPS:
            self._first.append(step)
            return None
        self._recent.append(step)
        if len(self._recent) < COMPARED_STEPS:
            return None
        ratio = _seconds(self._recent) / _seconds(self._first)
        if not self._is_slow and ratio > FAR_SLOWER:
            self._is_slow = True
            line = f"training is {ratio:.1f} times slower than at its start; {self._cause()}"
            logger.warning("%s", line)
            return line
        if self._is_slow and ratio < RECOVERED:
            self._is_slow = False
            line = "training is as fast as at its start again"
            logger.info("%s", line)
            return line
        return None

    def _cause(self) -> str:
        """What there is to say about the reason, with what to do."""
        waited, before = _waited(self._recent), _waited(self._first)
        if waited > 0.5 and waited > before + 0.2:
            return (
                f"{100 * waited:.0f} % of a step is waiting for data ({100 * before:.0f} % then): "
                "look at the disk, or add loader processes with --num_workers"
            )
        cpus = usable_cpus()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        if load > 1.5 * cpus:
            return (
                f"{load:.1f} threads compete for {cpus} CPUs (load average): other programs run "
                "here; stop them, or give this one fewer threads (OMP_NUM_THREADS)"
            )
        return (
            "neither data nor other programs on the CPUs are the reason: look at the GPU's clock, "
            "temperature and other users (nvidia-smi), or at the limits of the container"
        )


def _seconds(steps: list[tuple[float, float]] | deque[tuple[float, float]]) -> float:
    return median(seconds for seconds, _ in steps)


def _waited(steps: list[tuple[float, float]] | deque[tuple[float, float]]) -> float:
    return median(waited for _, waited in steps)
