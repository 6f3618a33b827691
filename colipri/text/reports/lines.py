"""The lines of a report: which of them belong together, and which hold several items of a list.

Many reports are wrapped at 80 columns, so a line break inside a sentence counts as a space. Others
are lists: with numbers or bullets, also several in one line, or bare phrases in small letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from colipri.text.reports.abbreviations import is_protected
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.word_lists import word_list

_BULLETS = "\u2022\u25aa\u25ab\u25e6\u2023\u25cf\u25cb\u25a0\u25a1\u25ba\u27a2\u27a4\uf0b7"
# A line that starts like this starts a new list item, whatever came before it.
_ITEM = re.compile(
    rf"(?:[{_BULLETS}][ \t]*|[-*\u00b7\u2013\u2014+>o][ \t]+|\(?\d{{1,2}}[.)][ \t]+"
    r"|\(?[a-zA-Z][.)][ \t]+)(?=\S)|(?:\d{1,2}[.)]|[-*])(?=[A-Z][a-z])"
)
_BULLET = re.compile(rf"[ \t]*(?=[{_BULLETS}][ \t]*[^\s{_BULLETS}])| (?=\u00b7 \S)")
_DASH_ITEM = re.compile(r"[-*\u2013\u2014] ")
_DASH = re.compile(r" (?=[-*\u2013\u2014] \S)")
_NUMBER = re.compile(r"(?:^|(?<=\s))\(?(\d{1,2})[.)][ \t]+(?=\S)")
_FEWEST_DASHES = 2  # in one line besides the first; a single one separates a remark
_OPEN_ENDS = tuple(",;(/&+-\u2013:")  # a line that ends like this continues on the next
_ENDS = ".!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4"
_PROSE = re.compile(rf"[{re.escape(_ENDS)}]\s+\S")
_WRAP_MARGIN = 15  # characters; a line shorter than the longest by more was ended on purpose
_WRAP_WIDTH = 60  # characters; shorter lines are lists, not wrapped prose
_FIRST_LETTER = re.compile(r"[^\W\d_]")


def statement_lines(text: str) -> list[str]:
    """Join wrapped lines, and give every item of a list a line of its own.

    Example:
        >>> statement_lines("• Emphysema • No nodule"), statement_lines("1. Cyst 2. No nodule")
        (['• Emphysema', '• No nodule'], ['1. Cyst', '2. No nodule'])
    """
    lines = join_wrapped_lines(text)
    has_one_dash = sum(_DASH_ITEM.match(line) is not None for line in lines) == 1
    return [item for line in lines for item in _items(line, has_one_dash)]


def join_wrapped_lines(text: str) -> list[str]:
    """Join wrapped lines; list items and paragraphs stay separate."""
    raw = [fold_spaces(line) for line in text.split("\n")]
    longest = max((len(line) for line in raw), default=0)
    is_list = _is_list_in_small_letters([line for line in raw if line])
    joined: list[list[str]] = []
    previous = ""
    for line in raw:
        if line and previous and _continues(previous, line, longest, is_list):
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


def _items(line: str, has_one_dash: bool) -> Iterator[str]:
    """The items of a list that is written in one line; otherwise the line itself."""
    for part in filter(None, map(str.strip, _BULLET.split(line))):
        dashes = _DASH.findall(part)
        if has_one_dash and _DASH_ITEM.match(part) and len(dashes) >= _FEWEST_DASHES:
            yield from _DASH.split(part)
        else:
            yield from _numbered_items(part)


def _numbered_items(line: str) -> Iterator[str]:
    """Split "1. Emphysema 2. No nodule" before the numbers that count on."""
    start, wanted = 0, 1
    for match in _NUMBER.finditer(line):
        if wanted == 1 and match.start() > 0:
            break  # not a list
        if int(match[1]) != wanted:
            continue
        before = line[max(0, match.start() - 24) : match.start()].lower().split()[-1:]
        if before and before[0] in _words("before_numbers"):
            continue  # "segment 2."
        if match.start() > start:
            yield line[start : match.start()].rstrip()
        start, wanted = match.start(), wanted + 1
    yield line[start:]


def _is_list_in_small_letters(lines: list[str]) -> bool:
    """True if every line is a phrase in small letters and none is prose of several sentences."""
    if len(lines) < 2:
        return False
    for line in lines:
        letter = _FIRST_LETTER.search(line)
        if line.endswith(":"):
            continue
        if letter is None or not letter.group().islower() or _PROSE.search(line):
            return False
    return True


def _continues(previous: str, line: str, longest: int, is_list: bool) -> bool:
    """True if ``line`` continues the sentence of the previous line."""
    if _ITEM.match(line):
        return False
    if previous.endswith(_OPEN_ENDS) or _last_word(previous).lower() in _words("unfinished"):
        return True
    if previous[-1] in _ENDS:
        return is_protected(previous, len(previous) - 1, line)
    first = _first_word(line)
    if line[0].islower() and not _is_wrapped(previous, longest):
        is_item = is_list and first not in _words("continuing")
        return not (is_item or (first == "no" and longest < _WRAP_WIDTH))
    if line[0].islower() or line[0] in "(,;":
        return True
    if first[:1].isupper() and first.lower() in _words("sentence_starters"):
        return previous.isupper() and line.isupper() and _is_wrapped(previous, longest)
    return _is_wrapped(previous, longest)


def _is_wrapped(line: str, longest: int) -> bool:
    """True if the line ends at the wrap width and not where the author ended it."""
    return longest >= _WRAP_WIDTH and len(line) >= longest - _WRAP_MARGIN


def _first_word(line: str) -> str:
    return line.split(None, 1)[0].rstrip(",:;")


def _last_word(line: str) -> str:
    return line.rsplit(None, 1)[-1]


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(word_list("sentence_words")[name])
