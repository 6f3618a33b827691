"""Word lists of the rules: the JSON files in ``data/``, read when first used.

==================  ==============================================================
headings            section headings in eight languages, and which sections are context
sentence_words      abbreviations, and words that continue or start a line
polarity_cues       classes of negation, uncertainty and normality cues (expressions)
findings_lexicon    words, word stems and phrases that name findings and devices
organs              organ systems: names of anatomy, and findings that imply an organ
laterality          words for sides, with their counterparts
==================  ==============================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json

_FOLDER = Path(__file__).with_name("data")


@cache
def word_list(name: str) -> dict[str, Any]:
    """The content of ``data/<name>.json``."""
    content: dict[str, Any] = read_json(_FOLDER / f"{name}.json")
    return content


@cache
def word_lists_digest() -> str:
    """Eight hexadecimal digits that change when any word list is edited."""
    digest = hashlib.sha256()
    for file in sorted(_FOLDER.glob("*.json")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def any_of(expressions: Iterable[str]) -> str:
    """An alternation of regular expressions in which the longest match wins."""
    return "|".join(sorted(set(expressions), key=lambda text: (-len(text), text)))
