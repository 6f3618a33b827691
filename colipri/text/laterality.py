"""Sides in text: whether a text names one, and the same text for a mirrored image.

An image that is flipped left to right no longer fits "left pleural effusion". Augmentation asks
:func:`names_a_side` and does not flip, or flips and exchanges the sides in the text.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

_TABLE_FILE = Path(__file__).with_name("laterality.json")
# "L lung", "(R)", "R > L", "LT kidney": single letters count only next to what has two sides.
_LETTER = re.compile(
    r"(?<![\w.-])(?:(?P<bracket>\()(?P<a>[LR])(?=\)(?!\w))"
    r"|(?P<b>[LR])(?=[ -](?:lung|lobe|upper|lower|middle|hilum|hilar|kidney|renal|adrenal|pleural"
    r"|breast|axilla|sided|side"
    r"|hemithorax|ovary|hip|femur|shoulder|clavicle|rib|main|apex|apical|base|basal|basilar"
    r"|thyroid|ventric|atri|iliac|carotid)"
    r"|\s*[<>=]+\s*[LR](?!\w))"
    r"|(?<=[<>=])\s*(?P<c>[LR])(?!\w))"
)


def names_a_side(text: str) -> bool:
    """Whether the text would be wrong for the mirrored image.

    "left", "right-sided", "RUL", "Lt." and "L lung" are sides, and so are parts that exist on one
    side only (middle lobe, lingula). "Bilateral", "right-handed" and the vertebra "L1" are not.

    Example:
        >>> names_a_side("Nodule in the RUL."), names_a_side("Bilateral effusions.")
        (True, False)
    """
    remaining = _not_a_side().sub(" ", text)
    return (
        _side_pattern().search(remaining) is not None
        or _implied_pattern().search(remaining) is not None
        or _LETTER.search(remaining) is not None
    )


def can_swap_sides(text: str) -> bool:
    """Whether :func:`swap_sides` gives a true description of the mirrored image.

    False where the text names a part without a counterpart ("lingula", "RML"): then do not flip.
    """
    return _implied_pattern().search(text) is None and not re.search(r"(?i)\b[lr]ml\b", text)


def swap_sides(text: str) -> str:
    """The text with left and right exchanged, capitals kept; twice gives the text again.

    Example:
        >>> swap_sides("Left effusion; nodule in the RUL.")
        'Right effusion; nodule in the LUL.'
    """
    protected = [match.span() for match in _not_a_side().finditer(text)]

    def exchange(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in protected):
            return match.group()
        return _like(match.group(), _counterparts()[match.group().lower()])

    def exchange_letter(match: re.Match[str]) -> str:
        return match.group().translate(str.maketrans("LR", "RL"))

    return _LETTER.sub(exchange_letter, _side_pattern().sub(exchange, text))


def _like(original: str, word: str) -> str:
    """``word`` with the capitals of ``original``."""
    if len(original) > 1 and original.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if original[0].isupper() else word


@cache
def _counterparts() -> dict[str, str]:
    pairs = _table()["swap"]
    return dict(pairs) | {right: left for left, right in pairs}


@cache
def _side_pattern() -> re.Pattern[str]:
    words = "|".join(
        re.escape(word) for word in sorted(_counterparts(), key=lambda w: (-len(w), w))
    )
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


@cache
def _implied_pattern() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(_table()['implied'])})(?!\w)", re.IGNORECASE)


@cache
def _not_a_side() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(_table()['not_a_side'])})(?!\w)", re.IGNORECASE)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE_FILE.read_text(encoding="utf-8"))
    return table
