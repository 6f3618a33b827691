"""What people read while a command works: the progress bar, and sizes as they write them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item],
    description: str,
    total: int | None = None,
    unit: str = "case",
    status: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Iterate over ``items`` with a bar that shows rate and time left (stderr, terminals only).

    ``status`` gives more to show behind the rate, asked after each item.

    Args:
        items: What is iterated over.
        description: Left of the bar.
        total: Number of items, where they have no length.
        unit: Of an item.
        status: Gives more to show behind the rate; asked after each item.
    """
    bar = tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        # of several processes of one training the first shows the bar
        disable=not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0",
        dynamic_ncols=True,
        file=sys.stderr,
    )
    for item in bar:
        yield item
        if status is not None:
            bar.set_postfix_str(status(), refresh=False)


def show_sizes(values: Iterable[float], pattern: str = "g") -> str:
    """Format sizes as ``8 x 8 x 8``; ``pattern`` is Python's format of one number."""
    return " x ".join(format(float(value), pattern) for value in values)
