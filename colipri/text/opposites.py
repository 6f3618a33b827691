"""The opposite of a sentence: "There is a nodule." and "There is no nodule.".

Opposite sentences are what zero-shot classification compares, and the opposite sentence loss trains
on. The rules know the ways in which reports say that something is there or not; what they do not
know gets "No ..." in front, which the polarity rules, and readers, take as a denial.
"""

from __future__ import annotations

import re

from colipri.text.asserting import assert_denied
from colipri.text.denying import deny
from colipri.text.lexicon import cues, has_strong_finding
from colipri.text.polarity import Polarity, sentence_polarity, split_clauses, tag_sentence
from colipri.text.statements import as_statement

_LABEL = re.compile(r"^(?:[A-Za-z][\w/&-]*,? ?){1,6}: +(?=\S)")


def opposite(sentence: str) -> str | None:
    """The opposite of a positive or negative sentence; None for any other.

    Example:
        >>> opposite("No pleural effusion."), opposite("Comparison: none.")
        ('Pleural effusion.', None)
    """
    polarity = sentence_polarity(sentence)
    if polarity == "positive":
        return negate(sentence)
    return affirm(sentence) if polarity == "negative" else None


def negate(sentence: str) -> str:
    """Deny what the sentence says is there; a sentence that is a denial already stays.

    Of a sentence that says several things the first positive clause is denied, alone.

    Example:
        >>> negate("There is a left pleural effusion."), negate("The heart is enlarged.")
        ('There is no left pleural effusion.', 'The heart is not enlarged.')
    """
    statement = as_statement(sentence)
    if sentence_polarity(statement) == "negative":
        return statement
    label, body = split_label(_first_clause(statement, "positive"))
    return as_statement(_with_label(label, deny(body)))


def affirm(sentence: str) -> str:
    """Say that what the sentence denies is there; a sentence that is no denial stays.

    Of several denials the first that names a finding is asserted, alone.

    Example:
        >>> affirm("There is no left pleural effusion."), affirm("No nodules or masses.")
        ('There is a left pleural effusion.', 'Nodules and masses.')
    """
    statement = as_statement(sentence)
    if sentence_polarity(statement) != "negative":
        return statement
    label, body = split_label(_first_clause(statement, "negative"))
    return as_statement(_with_label(label, assert_denied(_clearest_denial(body))))


def _first_clause(statement: str, polarity: Polarity) -> str:
    clauses = tag_sentence(statement)
    chosen = next((c.text for c in clauses if c.polarity == polarity), statement)
    return as_statement(chosen)


def _clearest_denial(body: str) -> str:
    """Of "Both lungs are clear with no nodule." the part that names a finding: "No nodule."."""
    parts = split_clauses(body)
    for part in parts if len(parts) > 1 else []:
        lowered = part.lower()
        if cues("negation_before").search(lowered) and has_strong_finding(lowered):
            return as_statement(part)
    return body


def split_label(statement: str) -> tuple[str, str]:
    """("Lungs: ", "Clear.") where a heading of an organ leads the sentence, else ("", sentence)."""
    match = _LABEL.match(statement)
    return (statement[: match.end()], statement[match.end() :]) if match else ("", statement)


def _with_label(label: str, body: str) -> str:
    if label:
        return label + (body[:1].lower() + body[1:] if body[1:2].islower() else body)
    return body[:1].upper() + body[1:]
