"""Findings by organ system: the sections that a report implies, where it has no headings for them.

The opposite sentence loss needs places in which a report names nothing abnormal; "findings" as one
section hardly ever qualifies, "pleura" often does.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from colipri.text.polarity import POLARITIES
from colipri.text.report import context_sections
from colipri.text.structuring import StructuredReport

_TABLE_FILE = Path(__file__).with_name("organs.json")
_LABEL = re.compile(r"^\W*(?P<label>[A-Za-z][\w/&, -]{1,50}):")
OTHER = "other"  # sentences that name no organ: "Normal study."


@lru_cache(maxsize=65536)
def organ_of(sentence: str) -> str:
    """The organ system that a sentence is about ("lungs", "pleura", ...), or "other".

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

    A sentence that names no organ belongs to the heading of an organ before it ("LUNGS: Clear. No
    change."), if there is one. Technique, comparison and the like are left out.
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


@cache
def _pattern(tier: str) -> re.Pattern[str]:
    """One alternation with a group per organ, longer wordings first, so that the earliest wins."""
    table: dict[str, Any] = json.loads(_TABLE_FILE.read_text(encoding="utf-8"))
    entries = [(word, organ) for organ, words in table[tier].items() for word in words]
    longest = {organ: max(map(len, words)) for organ, words in table[tier].items()}
    by_group: dict[str, list[str]] = {}
    for word, organ in sorted(entries, key=lambda entry: (-len(entry[0]), entry[0])):
        by_group.setdefault(organ, []).append(word)
    ordered = sorted(by_group, key=lambda organ: (-longest[organ], organ))
    groups = "|".join(f"(?P<{organ}>{'|'.join(by_group[organ])})" for organ in ordered)
    return re.compile(rf"(?<!\w)(?:{groups})(?!\w)")
