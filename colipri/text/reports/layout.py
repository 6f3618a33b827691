"""The layout of a report: where its sections start.

Layouts differ by hospital and by the program that exported the text: headings on lines of their
own, headings inside one long line, labels of organs instead of findings, or no heading at all after
the technique. Text that describes the image must not end up in a section about the examination,
where it would be neutral and nothing would say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from colipri.text.reports.headings import (
    FINDINGS,
    IMPRESSION,
    Heading,
    capital_headings,
    has_strong_word,
    known_section,
    names_organs,
    section_of_key_words,
)
from colipri.text.word_lists import word_list

_LONGEST = 70  # characters of a heading or label
_MOST_WORDS = 9
_FEWEST_LABELS = 2  # of organs in the clinical information: one may name the question
_CLINICAL = "clinical_information"
_ASIDES = ("comparison", "technique", "examination")
_OPENING = re.compile(r"[#*_=~>|\[ \t]*(?:\(?\d{1,2}[.)][ \t]*|[IVX]{1,4}\.[ \t]*)?[*_\[ \t]*")
_CLOSING = re.compile(r"[*_=~\] \t]*")
_COLON = re.compile(r"[:\uff1a]")
_LINE = re.compile(r"[^\n]+")
_WORD = re.compile(r"\S+")
_MARK = re.compile(
    r"(?P<colon>[*_=~\] \t]*[:\uff1a][*_=~\] \t]*)"
    r"|(?P<dash>[*_=~\] \t]*[ \t][-\u2013\u2014]+(?:[ \t][*_=~\] \t]*|$))"
)
_ALONE = re.compile(r"[-\u2013\u2014:\uff1a*_=~\] \t]*$")
_CAPITAL_LABEL = re.compile(r"(?<!\S)(?P<label>[A-Z][A-Z/&,-]{3,}(?: [A-Z/&,-]+){0,6})[:\uff1a]")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_ENDS_SENTENCE = tuple(".!?:;)|>")


def find_headings(text: str) -> list[Heading]:
    """All headings, in the order of the text.

    A heading is alone on a line, or starts a line and is followed by a colon or a dash, or is
    inside a line, capitalised and followed by a colon ("... pain COMPARISON: None"). In a report
    without a heading of findings they start with the first label of an organ, or with the second
    paragraph of the last section about the examination.

    Args:
        text: cleaned (:func:`colipri.text.reports.cleaning.clean_text`).
    """
    shouts = text.upper() == text  # capitals then say nothing
    found = [
        heading
        for line in _LINE.finditer(text)
        for heading in _headings_of_line(text, line.start(), line.end(), shouts)
    ]
    if not shouts:
        places = {heading.start for heading in found}
        found += [h for h in _capitals_without_colon(text) if h.start not in places]
        found.sort()
    found = _without_asides(text, found)
    if any(heading.section == FINDINGS for heading in found):
        return found
    return _with_findings(text, found, shouts)


def _without_asides(text: str, found: Sequence[Heading]) -> list[Heading]:
    """Drop "Comparison:" inside a line of the findings: the findings continue after it."""
    places = [n for n, heading in enumerate(found) if heading.section in (FINDINGS, IMPRESSION)]
    if not places:
        return list(found)
    return [
        heading
        for number, heading in enumerate(found)
        if number <= places[-1]
        or heading.section not in _ASIDES
        or not _just_before(text, 0, heading.start).rpartition("\n")[2].strip()
    ]


def _headings_of_line(text: str, start: int, end: int, shouts: bool) -> Iterator[Heading]:
    first = _first_of_line(text, start, end, shouts)
    is_small = False
    if first is not None:
        yield first
        is_small = text[first.start : first.end].lstrip(" #*_\t")[:1].islower()
        start = first.end
    for colon in _COLON.finditer(text, start, end):
        inside = _before_colon(text, start, colon.start(), shouts, is_small)
        if inside is not None:
            closing = _CLOSING.match(text, colon.end(), end)
            start = closing.end() if closing else colon.end()
            yield Heading(inside[0], start, inside[1])


def _capitals_without_colon(text: str) -> Iterator[Heading]:
    for match in capital_headings().finditer(text):
        before = _just_before(text, 0, match.start()).rstrip(" \t*#")[-1:]
        section = section_of_key_words(match["key"])
        if section is not None and (not before or before == "\n" or before in _ENDS_SENTENCE):
            yield Heading(match.start(), match.end(), section)


def _first_of_line(text: str, start: int, end: int, shouts: bool) -> Heading | None:
    """The heading with which a line starts."""
    opening = _OPENING.match(text, start, end)
    begin = opening.end() if opening else start
    for mark in _MARK.finditer(text, begin, min(end, begin + _LONGEST)):
        section = known_section(text[begin : mark.start()])
        if section is not None:
            return Heading(start, mark.end(), section)
        if mark.lastgroup == "colon":
            break
    if end - begin <= _LONGEST:
        label = text[begin:end]
        section = known_section(_ALONE.sub("", label))
        is_heading = label.isupper() and not shouts
        if section is not None and (is_heading or section_of_key_words(label) is not None):
            return Heading(start, end, section)
    return None


def _before_colon(
    text: str, start: int, colon: int, shouts: bool, is_small: bool
) -> tuple[int, str] | None:
    """Start and section of the heading that ends at a colon inside a line, if there is one.

    Args:
        text: the whole text.
        start: of what may belong to the heading.
        colon: index of the colon.
        shouts: the text is in capitals throughout.
        is_small: the line starts with a heading in small letters, so others may be small too.
    """
    begin = max(start, colon - _LONGEST)
    if begin > start and not text[begin - 1].isspace():
        space = re.compile(r"\s").search(text, begin, colon)
        begin = space.end() if space else colon
    words = list(_WORD.finditer(text, begin, colon))[-_MOST_WORDS:]
    for number, word in enumerate(words):
        phrase = text[word.start() : colon].lstrip("*_#=~|>[(")
        is_capital = phrase[:1].isupper()
        if not (is_capital or is_small):
            continue
        before = _just_before(text, start, word.start()).rstrip()
        if before.endswith(_ENDS_SENTENCE):
            section = known_section(phrase)
        elif has_strong_word(phrase) and not (
            (shouts or not is_capital) and words[number - 1].group().lower() in _in_sentence()
        ):
            section = section_of_key_words(phrase)
        else:
            continue
        if section is not None:
            return word.start(), section
    return None


def _with_findings(text: str, found: Sequence[Heading], shouts: bool) -> list[Heading]:
    """Add the place at which findings start that no heading announces."""
    before = frozenset(word_list("headings")["before_findings"])
    context = frozenset(word_list("headings")["context"])
    describes = any(heading.section not in context for heading in found)
    describes = describes or bool(found and text[: found[0].start].strip())
    for number, heading in enumerate(found):
        if heading.section not in before:
            continue
        stop = found[number + 1].start if number + 1 < len(found) else len(text)
        labels = sorted(_organ_labels(text, heading.end, stop, shouts))
        fewest = _FEWEST_LABELS if heading.section == _CLINICAL else 1
        place = labels[0] if len(labels) >= fewest else None
        is_last = number + 1 == len(found) or found[number + 1].section not in before
        if place is None and is_last and not (heading.section == _CLINICAL and describes):
            place = _second_paragraph(text, heading.end, stop)
        if place is not None:
            return [*found[: number + 1], Heading(place, place, FINDINGS), *found[number + 1 :]]
    return list(found)


def _organ_labels(text: str, start: int, stop: int, shouts: bool) -> Iterator[int]:
    """Where labels of organs start: on lines of their own, or in capitals within a line."""
    alone = []
    for line in _LINE.finditer(text, start, stop):
        opening = _OPENING.match(text, line.start(), line.end())
        begin = opening.end() if opening else line.start()
        if line.start() > start or text[start - 1 : start] == "\n":
            colon = _COLON.search(text, begin, min(line.end(), begin + _LONGEST))
            label = text[begin : colon.start() if colon else line.end()]
            if names_organs(label):
                if colon is not None or label.isupper():
                    yield line.start()
                else:
                    alone.append(line.start())
                continue
        if not shouts:
            for match in _CAPITAL_LABEL.finditer(text, begin, line.end()):
                if names_organs(match["label"]):
                    yield match.start("label")
    if len(alone) >= _FEWEST_LABELS:
        yield from alone


def _second_paragraph(text: str, start: int, stop: int) -> int | None:
    """Where the second paragraph of a section starts, if there is one."""
    first = start + len(text[start:stop]) - len(text[start:stop].lstrip())
    blank = _BLANK_LINE.search(text, first, stop)
    if blank is None or not text[blank.end() : stop].strip():
        return None
    return blank.end()


def _just_before(text: str, start: int, stop: int) -> str:
    """The last characters of ``text[start:stop]``; a copy of all would take quadratic time."""
    return text[max(start, stop - _LONGEST) : stop]


@cache
def _in_sentence() -> frozenset[str]:
    """Words after which a key word in small letters is part of the sentence: "the findings:"."""
    return frozenset(word_list("headings")["in_sentence"])
