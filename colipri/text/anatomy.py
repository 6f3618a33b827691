"""Anatomy named in text: the organ system of a sentence, and the side of the body.

Reports often have no headings per organ. The opposite sentence loss needs parts of a report without
abnormal findings; the section "findings" hardly ever is one, the organ system "pleura" often is.

An image that is flipped left to right no longer fits "left pleural effusion". Augmentation asks
:func:`names_a_side` and does not flip, or flips and swaps the sides in the text.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from colipri.text.polarity.tagging import POLARITIES
from colipri.text.reports.report import context_sections
from colipri.text.structured_report import StructuredReport
from colipri.text.word_lists import any_of, word_list

_LABEL = re.compile(r"^\W*(?P<label>[A-Za-z][\w/&, -]{1,50}):")
OTHER = "other"  # organ system of sentences that name no organ: "Normal study."
_MIDDLE_LOBE = re.compile(r"\b[lr]ml\b", re.IGNORECASE)
# "L lung", "(R)", "R > L": single letters count only next to a paired organ.
_LETTER = re.compile(
    r"(?<![\w.-])(?:(?P<bracket>\()(?P<a>[LR])(?=\)(?!\w))"
    r"|(?P<b>[LR])(?=[ -](?:lung|lobe|upper|lower|middle|hilum|hilar|kidney|renal|adrenal|pleural"
    r"|breast|axilla|sided|side"
    r"|hemithorax|ovary|hip|femur|shoulder|clavicle|rib|main|apex|apical|base|basal|basilar"
    r"|thyroid|ventric|atri|iliac|carotid)"
    r"|\s*[<>=]+\s*[LR](?!\w))"
    r"|(?<=[<>=])\s*(?P<c>[LR])(?!\w))"
)


@lru_cache(maxsize=65536)
def organ_of(sentence: str) -> str:
    """The organ system of a sentence ("lungs", "pleura", ...), or "other".

    Example:
        >>> organ_of("Small left effusion."), organ_of("The pulmonary arteries are normal.")
        ('pleura', 'vessels')
    """
    lowered = sentence.lower()
    for tier in ("anatomy", "findings"):
        match = _pattern(tier).search(lowered)
        if match and match.lastgroup:
            return match.lastgroup
    return OTHER


def by_organ(structured: StructuredReport) -> dict[str, dict[str, list[str]]]:
    """Sentences by organ system and polarity, in the layout of ``StructuredReport.sections``.

    A sentence that names no organ belongs to the last heading of an organ before it ("LUNGS:
    Clear. No change."). Technique, comparison and similar sections are left out.
    """
    organs: dict[str, dict[str, list[str]]] = {}
    section, heading = None, OTHER
    for sentence in structured.sentences():
        if sentence.section in context_sections():
            continue
        if sentence.section != section:
            section, heading = sentence.section, OTHER
        label = _LABEL.match(sentence.text)
        if label:
            heading = organ_of(label["label"])
        organ = organ_of(sentence.text)
        organ = heading if organ == OTHER else organ
        entry = organs.setdefault(organ, {polarity: [] for polarity in POLARITIES})
        entry[sentence.polarity].append(sentence.text)
    return organs


def names_a_side(text: str) -> bool:
    """True if the text would be wrong for the mirrored image.

    "left", "right-sided", "RUL", "Lt." and "L lung" name a side, and so do parts that exist on one
    side only (middle lobe, lingula). "Bilateral", "right-handed" and the vertebra "L1" do not.

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
    """True if :func:`swap_sides` gives a correct description of the mirrored image.

    False if the text names a part without a counterpart ("lingula", "RML"): then do not flip.
    """
    return _implied_pattern().search(text) is None and _MIDDLE_LOBE.search(text) is None


def swap_sides(text: str) -> str:
    """Swap left and right, preserving capitals; swapping twice restores the text.

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


@cache
def _pattern(tier: str) -> re.Pattern[str]:
    """One alternation with a group per organ, longer expressions first: the earliest match wins.

    Args:
        tier: "anatomy" (names of organs) or "findings" (findings that imply an organ).
    """
    table = word_list("organs")
    entries = [(word, organ) for organ, words in table[tier].items() for word in words]
    longest = {organ: max(map(len, words)) for organ, words in table[tier].items()}
    by_group: dict[str, list[str]] = {}
    for word, organ in sorted(entries, key=lambda entry: (-len(entry[0]), entry[0])):
        by_group.setdefault(organ, []).append(word)
    ordered = sorted(by_group, key=lambda organ: (-longest[organ], organ))
    groups = "|".join(f"(?P<{organ}>{'|'.join(by_group[organ])})" for organ in ordered)
    return re.compile(rf"(?<!\w)(?:{groups})(?!\w)")


def _like(original: str, word: str) -> str:
    """Give ``word`` the capitals of ``original``."""
    if len(original) > 1 and original.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if original[0].isupper() else word


@cache
def _counterparts() -> dict[str, str]:
    pairs = word_list("laterality")["swap"]
    return dict(pairs) | {right: left for left, right in pairs}


@cache
def _side_pattern() -> re.Pattern[str]:
    words = any_of(map(re.escape, _counterparts()))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


@cache
def _implied_pattern() -> re.Pattern[str]:
    words = "|".join(word_list("laterality")["implied"])
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


@cache
def _not_a_side() -> re.Pattern[str]:
    words = "|".join(word_list("laterality")["not_a_side"])
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
