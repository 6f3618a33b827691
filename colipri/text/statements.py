"""Sentences that can stand alone: clauses without their connecting words, numbering and commas."""

from __future__ import annotations

import re

from colipri.text.sentences import strip_enumeration

_CONNECTING = re.compile(
    r"(?:[,;:\u2013\u2014-]\s*)*(?:(?:and|but|however|although|though|whereas|while"
    r"|yet)\b[,\s]+)*(?:with (?=no\b))?",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"(?:[\s,;:\u2013\u2014-]|(?<=\s)(?:and|but|or|with|while"
    r"|although)(?=\s*[.,;]*\s*$))+$",
    re.IGNORECASE,
)
_PUNCTUATION = " \t\n.,;:!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4"
_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", "\u0964", "\u061f", "\u06d4")


def as_statement(text: str) -> str:
    """The text as a sentence of its own; never empty if ``text`` is not.

    Example:
        >>> as_statement("2. Small left effusion,"), as_statement("but no pneumothorax.")
        ('Small left effusion.', 'No pneumothorax.')
    """
    stripped = strip_enumeration(text.strip())
    body = stripped[_leading(stripped) :]
    body = _TRAILING.sub("", body) or stripped
    if not body:
        return text.strip()
    body = body[0].upper() + body[1:] if body[0].islower() and body[1:2] != "." else body
    return body if body.endswith(_ENDS) or body.rstrip(")\"'”»").endswith(_ENDS) else body + "."


def core_span(text: str) -> tuple[int, int]:
    """Where the statement proper begins and ends: no numbering, connecting words or punctuation.

    Example:
        >>> text = "1. but no pneumothorax, "
        >>> text[slice(*core_span(text))]
        'no pneumothorax'
    """
    stripped = strip_enumeration(text)
    start = len(text) - len(stripped)
    start += _leading(stripped)
    body = _TRAILING.sub("", text[start:]).rstrip(_PUNCTUATION)
    return start, start + len(body)


def _leading(text: str) -> int:
    match = _CONNECTING.match(text)
    end = match.end() if match else 0
    return end if end < len(text) else 0
