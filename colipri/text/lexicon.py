"""The cue tables of the polarity rules, compiled once; the tables themselves are JSON files."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@cache
def cues(name: str) -> re.Pattern[str]:
    """The pattern of one class of cues ("negation_before", "normal", ...), longest first."""
    return _compile(_table("polarity_cues.json")[name])


@cache
def finding_pattern() -> re.Pattern[str]:
    """A word that names a finding, a device or a state after surgery."""
    table = _table("findings_lexicon.json")
    stems = "|".join(_flexible(stem) for stem in _longest_first(table["stems"]))
    words = "|".join(_flexible(word) for word in _longest_first(table["words"] + table["devices"]))
    endings = "|".join(_longest_first(table["endings"]))
    return re.compile(
        rf"(?<![\w-])(?:(?:{stems})[\w-]*|(?:{words})(?!\w)|\w{{2,}}(?:{endings})(?!\w))"
    )


@cache
def assertion_pattern() -> re.Pattern[str]:
    """Wording that says something is there, whatever it is ("is seen", "12 x 8 mm")."""
    return _compile(_table("findings_lexicon.json")["assertions"])


def _compile(expressions: list[str]) -> re.Pattern[str]:
    parts = "|".join(_flexible(expression) for expression in _longest_first(expressions))
    return re.compile(rf"(?<!\w)(?:{parts})(?!\w)")


def _flexible(expression: str) -> str:
    return expression.lower()


def _longest_first(expressions: list[str]) -> list[str]:
    return sorted(set(expressions), key=lambda expression: (-len(expression), expression))


@cache
def _table(file_name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((_FOLDER / file_name).read_text(encoding="utf-8"))
    return table
