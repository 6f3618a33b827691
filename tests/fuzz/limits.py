"""What every input must end in: a result, or one line that says what is wrong; soon, in memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from colipri.common.errors import ColipriError

SECONDS = float(os.environ.get("COLIPRI_FUZZ_SECONDS", "10"))  # of each test
ONE_INPUT_SECONDS = 5.0
_MOST_MEMORY_KB = 400_000  # in addition to what the process had

# One round; rounds are repeated with the next seed until the time is over. The same inputs come in
# the same order on every run: a failure can be repeated, and is no lottery.
_ROUND = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Outcomes:
    """Counts what came of the inputs."""

    def __init__(self) -> None:
        self.tried = 0
        self.refused = 0

    def of(self, action: Callable[[], Any]) -> Any:
        """Return the result of ``action``, or the ColipriError; other exceptions fail the test."""
        self.tried += 1
        with _bounded():
            try:
                return action()
            except ColipriError as error:
                self.refused += 1
                assert len(str(error).splitlines()) == 1, str(error)
                return error


def fuzz(check: Callable[..., None], *strategies: SearchStrategy[Any]) -> None:
    """Call ``check`` with drawn values until the time of a test is over."""
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        seed(number)(_ROUND(given(*strategies)(check)))()
        number += 1


@contextmanager
def _bounded() -> Iterator[None]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    yield
    assert time.monotonic() - start < ONE_INPUT_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < _MOST_MEMORY_KB
