"""Cue patterns and finding words of the polarity rules, compiled once from the word lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache

from colipri.text.word_lists import any_of, word_list

_WORD = re.compile(r"[^\W\d_](?:[\w'-]*\w)?")


@cache
def cues(name: str) -> re.Pattern[str]:
    """The pattern of one class of cues ("negation_before", "normal", ...), longest cue first."""
    # The leading (?<!\w) lets the engine skip every position at which no word starts.
    return re.compile(rf"(?<!\w)(?:{any_of(word_list('polarity_cues')[name])})(?!\w)")


def has_strong_finding(text: str) -> bool:
    """True if the text names a finding, a device or a state after surgery.

    Args:
        text: in lower case.
    """
    return _any_word(text, _is_strong) or _phrases("phrases").search(text) is not None


def has_weak_finding(text: str) -> bool:
    """True if the text has a word that is a finding unless something calls it normal.

    Args:
        text: in lower case.
    """
    return _any_word(text, _is_weak) or _phrases("assertions").search(text) is not None


def has_device(text: str) -> bool:
    """True if the text names a device or a state after surgery.

    Args:
        text: in lower case.
    """
    return _any_word(text, _is_device) or _phrases("devices").search(text) is not None


def _any_word(text: str, test: Callable[[str], bool]) -> bool:
    return any(test(match.group()) for match in _WORD.finditer(text))


@lru_cache(maxsize=32768)  # a lookup instead of 400 alternatives: reports have few distinct words
def _is_strong(word: str) -> bool:
    endings = _entries("endings")
    parts = (word, *word.split("-")) if "-" in word else (word,)
    return any(
        part in _words("words")
        or part.startswith(_entries("stems"))
        or (part.endswith(endings) and part not in endings)
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
def _entries(name: str) -> tuple[str, ...]:
    return tuple(word_list("findings_lexicon")[name])


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(entry for entry in _entries(name) if " " not in entry)


@cache
def _phrases(name: str) -> re.Pattern[str]:
    entries = _entries(name)
    if name == "devices":
        entries = tuple(entry for entry in entries if " " in entry or "/" in entry)
    return re.compile(rf"(?<!\w)(?:{any_of(entries)})")
