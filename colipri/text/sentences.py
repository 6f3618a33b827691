"""Text of a section to sentences, as radiologists write them.

Full stops of decimals, abbreviations, initials and list numbering do not end a sentence, and a line
break inside a sentence (reports are often wrapped at 80 columns) is a space.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from colipri.text.cleaning import fold_spaces

_ABBREVIATIONS_FILE = Path(__file__).with_name("abbreviations.json")
# A line that begins like this begins a new item, whatever stood before it.
_ITEM = re.compile(r"(?:[-*•·▪◦‣–—+>o][ \t]+|\(?\d{1,2}[.)][ \t]+|\(?[a-zA-Z][.)][ \t]+)(?=\S)")
# What ends a line that goes on: a comma, an opening, or a word that no sentence ends with.
_GOES_ON = re.compile(
    r"(?:[,;(/&+–-]|\b(?:a|an|the|of|in|on|at|to|for|from|by|with|without|and|or|nor|no|not|is|are|was|were"
    r"|has|have|be|been|as|than|that|which|into|near|per|most|may|left|right|upper|lower|there|this|these))$",
    re.IGNORECASE,
)
_TERMINATOR = re.compile(
    r"[.!?…]+(?:[)\]\"'”’»*_]+)?(?=\s|$)"  # an ordinary end
    r"|(?<=[a-z)\]%]{3})\.(?=[A-Z][a-z])"  # "effusion.No nodule": a forgotten space
    r"|[。！？।؟۔]+"  # other scripts, which need no space behind
)
_ENUMERATION_START = re.compile(r"[\s(\-*•]*(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})$")
_LAST_WORD = re.compile(r"([^\s(\[\"'“]+)$")
_DIMENSION = re.compile(
    r"(?:in|long|wide|thick|deep|high|from|above|below|x|by|and|at|diameter|diam)\b"
)
# Words that English writes small inside a sentence: capitalised, they begin one.
_STARTERS = frozenset(
    "a acute additionally all also an bilateral both chronic clear few findings heart however if in increased"
    " interval it large lungs mild moderate multiple new no normal not note on otherwise patent pleural"
    " possible previously pulmonary scattered see severe several similar slight small stable status surgical"
    " the there these this trace unchanged unremarkable visualized with within without".split()
)
# "... is clear HEART: normal": headings of organs in capitals begin a sentence wherever they stand.
_ORGAN_HEADING = re.compile(
    r"(?<=[a-z0-9)\]%,;])(?<! and)(?<! or)(?<! the)(?<! of) +(?=[A-Z][A-Z/&]{3,}[A-Z/& ]{0,40}:\s)"
)
_WRAP_MARGIN = 15  # characters; a line this much shorter than the longest was ended on purpose
_WRAP_WIDTH = 60  # characters; shorter lines are lists, not wrapped prose


def split_sentences(text: str) -> list[str]:
    """Split text into sentences, in order; joined by spaces they are the text again.

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
    """Lines as meant: wrapped lines are joined, items of a list and paragraphs stay apart."""
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
    """The sentence without list numbering or bullet ("1. Nodule." -> "Nodule.")."""
    stripped = sentence.lstrip()
    match = _ITEM.match(stripped)
    return stripped[match.end() :] if match and match.end() < len(stripped) else stripped


def _continues(previous: str, line: str, longest: int) -> bool:
    """Whether ``line`` goes on with the sentence of the line before it."""
    if _ITEM.match(line):
        return False
    if _GOES_ON.search(previous) or previous.endswith(":"):
        return True
    if previous[-1] in ".!?…。！？।؟۔":
        return _is_protected(previous, len(previous) - 1, line)
    if line[0].islower() or line[0] in "(,;":
        return True
    if line[0].isupper() and _first_word(line).lower() in _STARTERS and not previous.isupper():
        return False
    # "... in the right lung" / "Lower lobe ...": prose that was wrapped at the window's width.
    return longest >= _WRAP_WIDTH and len(previous) >= longest - _WRAP_MARGIN


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
            continue  # "? nodule" begins a guess, it does not end one
        sentence = line[start : match.end()].strip()
        if sentence:
            sentences.append(sentence)
        start = match.end()
    rest = line[start:].strip()
    if rest:
        sentences.append(rest)
    return sentences


def _is_protected(line: str, stop: int, following: str, start: int = 0) -> bool:
    """Whether the full stop at ``line[stop]`` belongs to a word or number, not to the sentence."""
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


@cache
def _abbreviations() -> dict[str, tuple[str, ...]]:
    data = json.loads(_ABBREVIATIONS_FILE.read_text(encoding="utf-8"))
    kinds: dict[str, tuple[str, ...]] = {}
    for kind in ("always", "before_number", "before_lowercase", "before_dimension"):
        for word in data[kind]:
            kinds[word] = (*kinds.get(word, ()), kind)
    return kinds
