"""The cue tables of the polarity rules, compiled once; the tables themselves are JSON files."""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_WORD = re.compile(r"[^\W\d_](?:[\w'-]*\w)?")


@cache
def cues(name: str) -> re.Pattern[str]:
    """The pattern of one class of cues ("negation_before", "normal", ...), longest first."""
    return _compile(_table("polarity_cues.json")[name])


def has_strong_finding(text: str) -> bool:
    """Whether the text names a finding, a device or a state after surgery.

    Args:
        text: in lower case.
    """
    return _any_word(text, _is_strong) or _phrases("phrases").search(text) is not None


def has_weak_finding(text: str) -> bool:
    """Whether the text has a word that is a finding unless something says it is normal."""
    return _any_word(text, _is_weak) or _phrases("assertions").search(text) is not None


def has_device(text: str) -> bool:
    """Whether the text names a device or a state after surgery."""
    return _any_word(text, _is_device) or _phrases("devices").search(text) is not None


def _any_word(text: str, test: Any) -> bool:
    return any(test(match.group()) for match in _WORD.finditer(text))


@lru_cache(maxsize=32768)  # a lookup instead of 400 alternatives: reports have few distinct words
def _is_strong(word: str) -> bool:
    table = _table("findings_lexicon.json")
    parts = (word, *word.split("-")) if "-" in word else (word,)
    return any(
        part in _words("words")
        or part.startswith(_starts("stems"))
        or (part.endswith(tuple(table["endings"])) and part not in table["endings"])
        or part in _words("devices")
        for part in parts
    )


@lru_cache(maxsize=32768)
def _is_weak(word: str) -> bool:
    return word in _words("weak")


@lru_cache(maxsize=32768)
def _is_device(word: str) -> bool:
    return word in _words("devices")


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(entry for entry in _table("findings_lexicon.json")[name] if " " not in entry)


@cache
def _starts(name: str) -> tuple[str, ...]:
    return tuple(_table("findings_lexicon.json")[name])


@cache
def _phrases(name: str) -> re.Pattern[str]:
    entries = _table("findings_lexicon.json")[name]
    if name == "devices":
        entries = [entry for entry in entries if " " in entry or "/" in entry]
    return re.compile(rf"(?<!\w)(?:{'|'.join(_longest_first(entries))})")


def _compile(expressions: list[str]) -> re.Pattern[str]:
    # The leading (?=...) lets the engine skip everything that cannot begin a cue.
    return re.compile(rf"(?<!\w)(?:{'|'.join(_longest_first(expressions))})(?!\w)")


def _longest_first(expressions: list[str]) -> list[str]:
    return sorted(set(expressions), key=lambda expression: (-len(expression), expression))


@cache
def _table(file_name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((_FOLDER / file_name).read_text(encoding="utf-8"))
    return table
