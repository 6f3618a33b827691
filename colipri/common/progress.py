"""The one progress bar: shown on a terminal, silent in pipes, log files and job arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], description: str, total: int | None = None, unit: str = "case"
) -> Iterator[Item]:
    """Iterate over ``items`` with a bar that shows rate and time left (stderr, terminals only)."""
    from tqdm import tqdm

    yield from tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        file=sys.stderr,
    )
