"""Names and values of plans and settings as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.display import show_sizes


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def in_words(name: str) -> str:
    """Return the name with spaces for underscores."""
    return str(name).replace("_", " ")


def sentence(name: str) -> str:
    """Return the name as the beginning of a sentence: "num_epochs" -> "Num epochs"."""
    return capital(in_words(name))


def plain_value(value: Any) -> str:
    """Format a setting for people: no brackets, no quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{in_words(key)} {plain_value(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(entry, (int, float)) for entry in value):
            return show_sizes(value) if len(value) == 3 else ", ".join(map(plain_value, value))
        return ", ".join(in_words(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else in_words(value)
