"""Text of a section to sentences, as radiologists write them.

Full stops of decimals, abbreviations, initials and list numbering do not end a sentence, and a line
break inside a sentence (reports are often wrapped at 80 columns) is a space.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from colipri.text.cleaning import fold_spaces

_WORDS_FILE = Path(__file__).with_name("sentence_words.json")
# A line that begins like this begins a new item, whatever stood before it.
_ITEM = re.compile(
    r"(?:[-*\u2022\u00b7\u25aa\u25e6\u2023\u2013\u2014+>o][ \t]+|\(?\d{1,2}[.)][ \t]+"
    r"|\(?[a-zA-Z][.)][ \t]+)(?=\S)"
)
_OPEN_ENDS = tuple(",;(/&+-\u2013:")  # a line that ends so goes on in the next
_TERMINATOR = re.compile(
    r"[.!?\u2026]+(?:[)\]\"'\u201d\u2019\u00bb*_]+)?(?=\s|$)"  # an ordinary end
    r"|(?<=[a-z)\]%]{3})\.(?=[A-Z][a-z])"  # "effusion.No nodule": a forgotten space
    r"|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+"  # other scripts, which need no space behind
)
_ENUMERATION_START = re.compile(r"[\s(\-*•]*(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})$")
_LAST_WORD = re.compile(r"([^\s(\[\"'“]+)$")
_DIMENSION = re.compile(
    r"(?:in|long|wide|thick|deep|high|from|above|below|x|by|and|at|diameter|diam)\b"
)
# "... is clear HEART: normal": headings of organs in capitals begin a sentence wherever they stand.
_ORGAN_HEADING = re.compile(
    r"(?<=[a-z0-9)\]%,;])(?<! and)(?<! or)(?<! the)(?<! of) +(?=[A-Z][A-Z/&]{3,}[A-Z/& ]{0,40}:\s)"
)
_WRAP_MARGIN = 15  # characters; a line this much shorter than the longest was ended on purpose
_WRAP_WIDTH = 60  # characters; shorter lines are lists, not wrapped prose


def split_sentences(text: str) -> list[str]:
    """Split text into sentences, in order; joined by spaces they are the text again.

    Example:
        >>> split_sentences("A 3.5 mm nodule, approx. 2 cm from the\\npleura. No effusion.")
        ['A 3.5 mm nodule, approx. 2 cm from the pleura.', 'No effusion.']
    """
    sentences: list[str] = []
    for line in join_wrapped_lines(text):
        for part in _ORGAN_HEADING.split(line):
            sentences.extend(_split_line(part))
    return sentences


def join_wrapped_lines(text: str) -> list[str]:
    """Lines as meant: wrapped lines are joined, items of a list and paragraphs stay apart."""
    raw = [fold_spaces(line) for line in text.split("\n")]
    longest = max((len(line) for line in raw), default=0)
    joined: list[list[str]] = []
    previous = ""
    for line in raw:
        if line and previous and _continues(previous, line, longest):
            joined[-1].append(line)
        elif line:
            joined.append([line])
        previous = line
    return [" ".join(parts) for parts in joined]


def strip_enumeration(sentence: str) -> str:
    """The sentence without list numbering or bullet ("1. Nodule." -> "Nodule.")."""
    stripped = sentence.lstrip()
    match = _ITEM.match(stripped)
    return stripped[match.end() :] if match and match.end() < len(stripped) else stripped


def _continues(previous: str, line: str, longest: int) -> bool:
    """Whether ``line`` goes on with the sentence of the line before it."""
    if _ITEM.match(line):
        return False
    if previous.endswith(_OPEN_ENDS) or _last_word(previous).lower() in _words("unfinished"):
        return True
    if previous[-1] in ".!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4":
        return _is_protected(previous, len(previous) - 1, line)
    if line[0].islower() or line[0] in "(,;":
        return True
    first = _first_word(line)
    if first[:1].isupper() and first.lower() in _words("sentence_starters"):
        return previous.isupper() and line.isupper() and _is_wrapped(previous, longest)
    return _is_wrapped(previous, longest)


def _is_wrapped(line: str, longest: int) -> bool:
    """Whether a line of prose ends where the window ended, and not where the writer ended it."""
    return longest >= _WRAP_WIDTH and len(line) >= longest - _WRAP_MARGIN


def _first_word(line: str) -> str:
    return line.split(None, 1)[0].rstrip(",:;")


def _split_line(line: str) -> list[str]:
    sentences = []
    start = 0
    for match in _TERMINATOR.finditer(line):
        following = line[match.end() : match.end() + 40].lstrip()
        if match.group()[0] == "." and _is_protected(line, match.start(), following, start):
            continue
        if match.group()[0] == "?" and not line[start : match.start()].strip(" ("):
            continue  # "? nodule" begins a guess, it does not end one
        sentence = line[start : match.end()].strip()
        if sentence:
            sentences.append(sentence)
        start = match.end()
    rest = line[start:].strip()
    if rest:
        sentences.append(rest)
    return sentences


def _is_protected(line: str, stop: int, following: str, start: int = 0) -> bool:
    """Whether the full stop at ``line[stop]`` belongs to a word or number, not to the sentence."""
    if line[stop : stop + 3] == "..." or not following:
        return False
    if _ENUMERATION_START.fullmatch(line, start, stop):
        return True  # "1. Small effusion."
    match = _LAST_WORD.search(line, max(start, stop - 24), stop)
    if match is None:
        return False
    word = match.group(1)
    if _is_initial(word, line[max(start, stop - 24) : match.start()], following):
        return True
    kinds = _abbreviations().get(word.lower().rstrip("."), ())
    first = following[0]
    return (
        "always" in kinds
        or ("before_number" in kinds and first.isdigit())
        or ("before_lowercase" in kinds and first.islower())
        or ("before_dimension" in kinds and _DIMENSION.match(following) is not None)
    )


def _is_initial(word: str, before: str, following: str) -> bool:
    """ "J." in "Dr. J. Smith" or "J. A. Smith", but not "B." in "hepatitis B. The liver"."""
    if len(word) != 1 or not word.isupper() or not following[:1].isupper():
        return False
    last = before.split()[-1:] or [""]
    return last[0].lower() in ("dr.", "prof.", "mr.", "mrs.", "ms.", "by") or bool(
        re.fullmatch(r"[A-Z]\.", last[0])
    )


def _last_word(line: str) -> str:
    return line.rsplit(None, 1)[-1]


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(_table()[name])


@cache
def _abbreviations() -> dict[str, tuple[str, ...]]:
    """Abbreviation -> the kinds of protection that it has."""
    kinds: dict[str, tuple[str, ...]] = {}
    for kind in ("always", "before_number", "before_lowercase", "before_dimension"):
        for word in _table()[kind]:
            kinds[word] = (*kinds.get(word, ()), kind)
    return kinds


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_WORDS_FILE.read_text(encoding="utf-8"))
    return table
