"""Headings in the text of a report: which words are one, where it is, which section it opens.

Hospitals combine a few key words freely ("FINDINGS/DISCUSSION:", "CT ANGIOGRAM CHEST FINDINGS:"),
and programs lose the line breaks around them. The words are data (headings.json, organs.json).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

from colipri.text.word_lists import any_of, word_list

FINDINGS = "findings"
IMPRESSION = "impression"
# Of a combined heading ("TECHNIQUE AND FINDINGS") the section that describes the image counts.
_FIRST_CHOICES = (FINDINGS, IMPRESSION, "addendum")
_LONGEST = 70  # characters of a heading; longer text before a colon is a sentence
_MOST_WORDS = 9
_JOINED = re.compile(r"\s*(?:[/&+,|]|\band\b)\s*")
_SPACES = re.compile(r"[\s/&+,-]+")
_BRACKETS = re.compile(r"\s*[(\[][^)\]]*[)\]]")


class Heading(NamedTuple):
    """A heading in a text: where it starts, where the text after it starts, what it opens."""

    start: int
    end: int
    section: str


def fold_heading(heading: str) -> str:
    """Lower case without accents and decoration; headings are compared in this form."""
    decomposed = unicodedata.normalize("NFKD", heading.casefold().replace("\u0131", "i"))
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return re.sub(r"[_\s]+", " ", letters).strip(" *#:=~[]()-.|>\u2013\u2014")


@lru_cache(maxsize=4096)
def known_section(heading: str) -> str | None:
    """The section that a heading opens, or None if the heading is unknown.

    A heading is a key word of headings.json, alone or with words that name the examination, or
    several of them.

    Example:
        >>> known_section("CT ANGIOGRAM CHEST FINDINGS"), known_section("Findings/Discussion")
        ('findings', 'findings')
    """
    return _section_of(heading, _section_of_part)


@lru_cache(maxsize=4096)
def section_of_key_words(heading: str) -> str | None:
    """As :func:`known_section`, of key words alone: "Findings and impression"."""
    return _section_of(heading, _sections_by_heading().get)


@lru_cache(maxsize=4096)
def names_organs(label: str) -> bool:
    """True if a label consists of organs, regions and findings: "LUNGS AND PLEURA", "Nodules"."""
    folded = fold_heading(_BRACKETS.sub("", label))
    if len(folded) > _LONGEST or len(_SPACES.split(folded)) > _MOST_WORDS:
        return False
    rest = _organ_words().sub(" ", folded)
    beside = _extra_words("beside_organs")
    return rest != folded and all(word in beside for word in _SPACES.split(rest) if word)


def has_strong_word(phrase: str) -> bool:
    """True if the phrase has a word that hardly occurs before a colon except in a heading."""
    return _strong_words().search(fold_heading(phrase)) is not None


@cache
def capital_headings() -> re.Pattern[str]:
    """ "FINDINGS The lungs are clear.": a key word in capitals before text that is not.

    It starts a line or a sentence.
    """
    words = any_of(word.upper() for word in word_list("headings")["strong"])
    text = r"[A-Z][a-z]|[A-Z] [a-z]|\d|(?:CT|CTA|MRI|PET|PA|AP)\b"
    return re.compile(rf"(?P<key>{words})[ \t]+(?={text})")


def _section_of(heading: str, of_part: Callable[[str], str | None]) -> str | None:
    folded = fold_heading(heading)
    table = _sections_by_heading()
    if folded in table:
        return table[folded]
    if len(folded) > _LONGEST or len(folded.split()) > _MOST_WORDS:
        return None
    folded = fold_heading(_BRACKETS.sub("", heading))
    parts = [part for part in _JOINED.split(folded) if part]
    found = [of_part(part) for part in parts]
    if not parts or None in found:
        return None
    named = [section for section in found if section]
    return next((name for name in _FIRST_CHOICES if name in named), named[0] if named else None)


def _section_of_part(part: str) -> str | None:
    """The section of one part of a heading; "" if it only names the examination."""
    words = part.split()
    table, beside = _sections_by_heading(), _extra_words("beside_key_words")
    if all(word in beside for word in words):
        return ""
    for size in range(len(words), 0, -1):
        for first in range(len(words) - size + 1):
            key = " ".join(words[first : first + size])
            rest = (*words[:first], *words[first + size :])
            if key in table and all(word in beside for word in rest):
                return table[key]
    return None


@cache
def _sections_by_heading() -> dict[str, str]:
    table: dict[str, str] = {}
    for name, headings in word_list("headings")["sections"].items():
        table[fold_heading(name)] = name
        table.update((fold_heading(heading), name) for heading in headings)
    return table


@cache
def _extra_words(name: str) -> frozenset[str]:
    return frozenset(word_list("headings")[name])


@cache
def _strong_words() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{any_of(word_list('headings')['strong'])})(?!\w)")


@cache
def _organ_words() -> re.Pattern[str]:
    organs = word_list("organs")
    lists = (*organs["anatomy"].values(), *organs["findings"].values())
    words = [word for one in lists for word in one]
    return re.compile(rf"(?<!\w)(?:{any_of([*words, *word_list('headings')['regions']])})(?!\w)")
