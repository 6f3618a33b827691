"""Splitting the text of a section into sentences, and making clauses sentences of their own.

Full stops in decimals, abbreviations, initials and list numbers do not end a sentence
(abbreviations.py), and line breaks only sometimes do (lines.py).
"""

from __future__ import annotations

import re
from functools import lru_cache

from colipri.text.reports.abbreviations import is_protected
from colipri.text.reports.lines import statement_lines, strip_enumeration

_TERMINATOR = re.compile(
    r"[.!?\u2026]+(?:[)\]\"'\u201d\u2019\u00bb*_]+)?(?=\s|$)"  # the usual end
    r"|(?<=[a-z)\]%]{3})\.(?=[A-Z][a-z])"  # "effusion.No nodule": a forgotten space
    r"|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+"  # other scripts, which need no space after it
)
# "... is clear HEART: normal": an organ heading in capitals starts a sentence anywhere in a line.
_ORGAN_HEADING = re.compile(
    r"(?<=[a-z0-9)\]%,;])(?<! and)(?<! or)(?<! the)(?<! of) +(?=[A-Z][A-Z/&]{3,}[A-Z/& ]{0,40}:\s)"
)
_PUNCTUATION_ALONE = re.compile(r"[-.,;:!?()\[\]*_=\u2013\u2014\u2026\s]+")
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


def split_sentences(text: str) -> list[str]:
    """Split text into sentences, in order; joining them with spaces restores the text.

    Example:
        >>> split_sentences("A 3.5 mm nodule, approx. 2 cm from the\\npleura. No effusion.")
        ['A 3.5 mm nodule, approx. 2 cm from the pleura.', 'No effusion.']
    """
    sentences: list[str] = []
    for line in statement_lines(text):
        for part in _ORGAN_HEADING.split(line):
            for sentence in _split_line(part):
                if sentences and _PUNCTUATION_ALONE.fullmatch(sentence):
                    sentences[-1] += f" {sentence}"  # "Lungs are clear. ."
                else:
                    sentences.append(sentence)
    return sentences


@lru_cache(maxsize=65536)  # reports repeat their sentences
def as_sentence(text: str) -> str:
    """Turn a clause or list item into a sentence of its own; empty only if ``text`` is.

    Connecting words, numbering and trailing commas are removed, a capital and a full stop added.

    Example:
        >>> as_sentence("2. Small left effusion,"), as_sentence("but no pneumothorax.")
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
    """Start and end of the text without numbering, connecting words and punctuation.

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


def _split_line(line: str) -> list[str]:
    sentences = []
    start = 0
    for match in _TERMINATOR.finditer(line):
        following = line[match.end() : match.end() + 40].lstrip()
        if match.group()[0] == "." and is_protected(line, match.start(), following, start):
            continue
        if match.group()[0] == "?" and not line[start : match.start()].strip(" ("):
            continue  # "? nodule" starts a guess, it does not end one
        sentence = line[start : match.end()].strip()
        if sentence:
            sentences.append(sentence)
        start = match.end()
    rest = line[start:].strip()
    if rest:
        sentences.append(rest)
    return sentences


def _leading(text: str) -> int:
    """Length of the connecting words at the start of the text."""
    match = _CONNECTING.match(text)
    end = match.end() if match else 0
    return end if end < len(text) else 0
