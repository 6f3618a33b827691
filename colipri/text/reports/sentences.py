"""Splitting the text of a section into sentences, and making clauses sentences of their own.

Full stops in decimals, abbreviations, initials and list numbers do not end a sentence. A line break
inside a sentence counts as a space, because many reports are wrapped at 80 columns.
"""

from __future__ import annotations

import re
from functools import cache

from colipri.text.reports.cleaning import fold_spaces
from colipri.text.word_lists import word_list

# A line that starts like this starts a new list item, whatever came before it.
_ITEM = re.compile(
    r"(?:[-*\u2022\u00b7\u25aa\u25e6\u2023\u2013\u2014+>o][ \t]+|\(?\d{1,2}[.)][ \t]+"
    r"|\(?[a-zA-Z][.)][ \t]+)(?=\S)"
)
_OPEN_ENDS = tuple(",;(/&+-\u2013:")  # a line that ends like this continues on the next
_TERMINATOR = re.compile(
    r"[.!?\u2026]+(?:[)\]\"'\u201d\u2019\u00bb*_]+)?(?=\s|$)"  # the usual end
    r"|(?<=[a-z)\]%]{3})\.(?=[A-Z][a-z])"  # "effusion.No nodule": a forgotten space
    r"|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+"  # other scripts, which need no space after it
)
_ENUMERATION_START = re.compile(r"[\s(\-*•]*(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})$")
_LAST_WORD = re.compile(r"([^\s(\[\"'“]+)$")
_DIMENSION = re.compile(
    r"(?:in|long|wide|thick|deep|high|from|above|below|x|by|and|at|diameter|diam)\b"
)
# "... is clear HEART: normal": an organ heading in capitals starts a sentence anywhere in a line.
_ORGAN_HEADING = re.compile(
    r"(?<=[a-z0-9)\]%,;])(?<! and)(?<! or)(?<! the)(?<! of) +(?=[A-Z][A-Z/&]{3,}[A-Z/& ]{0,40}:\s)"
)
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
_WRAP_MARGIN = (
    15  # characters; a line shorter than the longest by more than this was ended on purpose
)
_WRAP_WIDTH = 60  # characters; shorter lines are lists, not wrapped prose


def split_sentences(text: str) -> list[str]:
    """Split text into sentences, in order; joining them with spaces restores the text.

    Example:
        >>> split_sentences("A 3.5 mm nodule, approx. 2 cm from the\\npleura. No effusion.")
        ['A 3.5 mm nodule, approx. 2 cm from the pleura.', 'No effusion.']
    """
    sentences: list[str] = []
    for line in join_wrapped_lines(text):
        for part in _ORGAN_HEADING.split(line):
            sentences.extend(_split_line(part))
    return sentences


def join_wrapped_lines(text: str) -> list[str]:
    """Join wrapped lines; list items and paragraphs stay separate."""
    raw = [fold_spaces(line) for line in text.split("\n")]
    longest = max((len(line) for line in raw), default=0)
    joined: list[list[str]] = []
    previous = ""
    for line in raw:
        if line and previous and _continues(previous, line, longest):
            joined[-1].append(line)
        elif line:
            joined.append([line])
        previous = line
    return [" ".join(parts) for parts in joined]


def strip_enumeration(sentence: str) -> str:
    """Remove a list number or bullet ("1. Nodule." -> "Nodule.")."""
    stripped = sentence.lstrip()
    match = _ITEM.match(stripped)
    return stripped[match.end() :] if match and match.end() < len(stripped) else stripped


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


def _continues(previous: str, line: str, longest: int) -> bool:
    """True if ``line`` continues the sentence of the previous line."""
    if _ITEM.match(line):
        return False
    if previous.endswith(_OPEN_ENDS) or _last_word(previous).lower() in _words("unfinished"):
        return True
    if previous[-1] in ".!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4":
        return _is_protected(previous, len(previous) - 1, line)
    if line[0].islower() or line[0] in "(,;":
        return True
    first = _first_word(line)
    if first[:1].isupper() and first.lower() in _words("sentence_starters"):
        return previous.isupper() and line.isupper() and _is_wrapped(previous, longest)
    return _is_wrapped(previous, longest)


def _is_wrapped(line: str, longest: int) -> bool:
    """True if the line ends at the wrap width and not where the author ended it."""
    return longest >= _WRAP_WIDTH and len(line) >= longest - _WRAP_MARGIN


def _first_word(line: str) -> str:
    return line.split(None, 1)[0].rstrip(",:;")


def _split_line(line: str) -> list[str]:
    sentences = []
    start = 0
    for match in _TERMINATOR.finditer(line):
        following = line[match.end() : match.end() + 40].lstrip()
        if match.group()[0] == "." and _is_protected(line, match.start(), following, start):
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


def _is_protected(line: str, stop: int, following: str, start: int = 0) -> bool:
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
    kinds = _abbreviations().get(word.lower().rstrip("."), ())
    first = following[0]
    return (
        "always" in kinds
        or ("before_number" in kinds and first.isdigit())
        or ("before_lowercase" in kinds and first.islower())
        or ("before_dimension" in kinds and _DIMENSION.match(following) is not None)
    )


def _is_initial(word: str, before: str, following: str) -> bool:
    """ "J." in "Dr. J. Smith" or "J. A. Smith", but not "B." in "hepatitis B. The liver"."""
    if len(word) != 1 or not word.isupper() or not following[:1].isupper():
        return False
    last = before.split()[-1:] or [""]
    return last[0].lower() in ("dr.", "prof.", "mr.", "mrs.", "ms.", "by") or bool(
        re.fullmatch(r"[A-Z]\.", last[0])
    )


def _last_word(line: str) -> str:
    return line.rsplit(None, 1)[-1]


def _leading(text: str) -> int:
    """Length of the connecting words at the start of the text."""
    match = _CONNECTING.match(text)
    end = match.end() if match else 0
    return end if end < len(text) else 0


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(word_list("sentence_words")[name])


@cache
def _abbreviations() -> dict[str, tuple[str, ...]]:
    """Abbreviation -> the conditions under which its full stop does not end a sentence."""
    kinds: dict[str, tuple[str, ...]] = {}
    for kind in ("always", "before_number", "before_lowercase", "before_dimension"):
        for word in word_list("sentence_words")[kind]:
            kinds[word] = (*kinds.get(word, ()), kind)
    return kinds
