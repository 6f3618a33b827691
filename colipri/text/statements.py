"""Sentences that can stand alone: clauses without their connecting words, numbering and commas."""

from __future__ import annotations

import re

from colipri.text.sentences import strip_enumeration

_CONNECTING = re.compile(
    r"(?:[,;:–—-]\s*)*(?:(?:and|but|however|although|though|whereas|while|yet)\b[,\s]+)*(?:with (?=no\b))?",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"(?:[\s,;:–—-]|(?<=\s)(?:and|but|or|with|while|although)(?=\s*[.,;]*\s*$))+$", re.IGNORECASE
)
_ENDS = (".", "!", "?", "…", "。", "！", "？", "।", "؟", "۔")


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


def _leading(text: str) -> int:
    match = _CONNECTING.match(text)
    end = match.end() if match else 0
    return end if end < len(text) else 0
