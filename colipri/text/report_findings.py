"""Which findings a structured report asserts, doubts, denies or does not mention.

The polarity of a sentence comes from the structuring (rules or a language model); how a finding is
worded from ``finding_expressions.json``. A finding without an entry there is looked for by its own
name. What contradicts itself ("no effusion ... small effusion") counts as asserted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from colipri.common.atomic import read_json
from colipri.text.reports.report import context_sections
from colipri.text.structured_report import Sentence, StructuredReport

State = Literal["present", "uncertain", "absent", "not_mentioned"]
_OF_POLARITY: dict[str, State] = {
    "positive": "present",
    "uncertain": "uncertain",
    "negative": "absent",
}
_STRONGEST: tuple[State, ...] = ("present", "uncertain", "absent")


class _Expression(NamedTuple):
    any: re.Pattern[str]
    unless: re.Pattern[str] | None


def finding_states(report: StructuredReport, finding_names: Sequence[str]) -> dict[str, State]:
    """Say of every finding what the report states about it.

    Example:
        >>> from colipri.text.reports.report import report_from_text
        >>> from colipri.text.structured_report import structure_report
        >>> report = structure_report(report_from_text("Small left effusion. No pneumothorax."))
        >>> finding_states(report, ["Pleural effusion", "Pneumothorax", "Emphysema"])
        {'Pleural effusion': 'present', 'Pneumothorax': 'absent', 'Emphysema': 'not_mentioned'}
    """
    told: dict[str, set[State]] = {name: set() for name in finding_names}
    for sentence in describing_sentences(report):
        state = _OF_POLARITY.get(sentence.polarity)
        if state is None:
            continue
        for name in findings_named(sentence.text, tuple(finding_names)):
            told[name].add(state)
    return {name: _strongest(states) for name, states in told.items()}


def describing_sentences(report: StructuredReport) -> list[Sentence]:
    """Return the sentences outside technique, comparison and similar sections."""
    return [s for s in report.sentences() if s.section not in context_sections()]


@lru_cache(maxsize=65536)  # reports repeat their sentences
def findings_named(sentence: str, finding_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the findings that a sentence names, whatever it says about them."""
    lowered = sentence.lower()
    return tuple(name for name in finding_names if _names(lowered, _expression(name)))


def has_expressions(finding_name: str) -> bool:
    """True if the wordings of the finding are listed; otherwise only its own name is found."""
    return _key(finding_name) in _table()


def _strongest(states: Iterable[State]) -> State:
    return next((state for state in _STRONGEST if state in states), "not_mentioned")


def _names(lowered: str, expression: _Expression) -> bool:
    if expression.any.search(lowered) is None:
        return False
    return expression.unless is None or expression.unless.search(lowered) is None


@cache
def _expression(finding_name: str) -> _Expression:
    key = _key(finding_name)
    entry = _table().get(key)
    if entry is None:
        words = r"[\s_-]+".join(map(re.escape, key.split()))
        return _Expression(re.compile(rf"(?<!\w){words}(?:s|es)?(?!\w)"), None)
    unless = entry.get("unless")
    return _Expression(
        re.compile("|".join(entry["any"])), re.compile("|".join(unless)) if unless else None
    )


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    content = read_json(Path(__file__).with_name("finding_expressions.json"))
    return dict(content["findings"])


def _key(finding_name: str) -> str:
    return " ".join(finding_name.replace("_", " ").lower().split())
