"""Sizes and spacings as people write them."""

from __future__ import annotations

from collections.abc import Iterable


def show_sizes(values: Iterable[float], pattern: str = "g") -> str:
    """``8 x 8 x 8``; ``pattern`` is Python's format of one number."""
    return " x ".join(format(float(value), pattern) for value in values)
