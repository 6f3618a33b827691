"""Full stops that end no sentence: after abbreviations, initials and list numbers."""

from __future__ import annotations

import re
from functools import cache

from colipri.text.word_lists import word_list

_ENUMERATION_START = re.compile(r"[\s(\-*•]*(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})$")
_LAST_WORD = re.compile(r"([^\s(\[\"'“]+)$")
# Kind of abbreviation -> what follows the full stop if it does not end the sentence.
_FOLLOWED_BY = {
    "always": re.compile(r""),
    "before_number": re.compile(r"\d"),
    "before_lowercase": re.compile(r"[a-zß-öø-ÿ]"),
    "before_part": re.compile(r"(?:[IVX]{1,4}|[A-Z]?\d{1,2}|[A-Z])[a-d]?(?![A-Za-z])"),
    "before_dimension": re.compile(
        r"(?:in|long|wide|thick|deep|high|from|above|below|x|by|and|at|diameter|diam)\b"
    ),
}


def is_protected(line: str, stop: int, following: str, start: int = 0) -> bool:
    """True if the full stop at ``line[stop]`` belongs to a word or number.

    Args:
        line: the whole line.
        stop: index of the full stop.
        following: the text after it, without leading spaces.
        start: index at which the current sentence starts.
    """
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
    kinds = _kinds().get(word.lower().rstrip("."), ())
    return any(_FOLLOWED_BY[kind].match(following) for kind in kinds)


def _is_initial(word: str, before: str, following: str) -> bool:
    """ "J." in "Dr. J. Smith" or "J. A. Smith", but not "B." in "hepatitis B. The liver"."""
    if len(word) != 1 or not word.isupper() or not following[:1].isupper():
        return False
    last = before.split()[-1:] or [""]
    return last[0].lower() in ("dr.", "prof.", "mr.", "mrs.", "ms.", "by") or bool(
        re.fullmatch(r"[A-Z]\.", last[0])
    )


@cache
def _kinds() -> dict[str, tuple[str, ...]]:
    """Abbreviation -> the conditions under which its full stop does not end a sentence."""
    kinds: dict[str, tuple[str, ...]] = {}
    for kind in _FOLLOWED_BY:
        for word in word_list("sentence_words")[kind]:
            kinds[word] = (*kinds.get(word, ()), kind)
    return kinds
