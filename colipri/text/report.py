"""Reading a radiology report: the file, its encoding, its sections.

A report is a text file with headings in whatever style the hospital uses, or a JSON object with one
entry a section. Nothing is dropped: text before the first heading is the section "".
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.text.cleaning import clean_text, decode_report

_HEADINGS_FILE = Path(__file__).with_name("headings.json")


@dataclass(frozen=True)
class Report:
    """A report as text, by section, in the order of the file.

    sections: section name ("findings", "impression", "clinical_information", "technique",
        "comparison", ...; "" for text under no heading) to clean text, never empty.
    encoding: how the file was decoded ("" if it was no file).
    notes: what the reader had to guess, one line each; for the verification, not for training.
    """

    sections: dict[str, str]
    encoding: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """No text in any section."""
        return not self.sections

    @property
    def text(self) -> str:
        """All sections, in order, without headings."""
        return "\n".join(self.sections.values())


def read_report(path: Path | str) -> Report:
    """Read a ``.txt`` or ``.json`` report (any other ending is read as text).

    Text may be UTF-8 with or without byte order mark, UTF-16, or Windows-1252 / Latin-1. JSON is an
    object of sections whose values are text, lists of text, or again objects of text.

    Raises:
        ColipriError: the file is missing, unreadable, or not the JSON that is expected.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ColipriError(f"report {path} cannot be read: {reason}") from error
    text, encoding, note = decode_report(content)
    notes = (note,) if note else ()
    if path.suffix.lower() == ".json" and text.strip("\ufeff \t\r\n"):
        return Report(_sections_of_json(text.lstrip("\ufeff"), path), encoding, notes)
    return Report(split_sections(text), encoding, notes)


def report_from_text(text: str) -> Report:
    """The report in a string, for reports that do not come from a file (a table's cell)."""
    return Report(split_sections(text))


def report_from_sections(sections: Mapping[str, Any]) -> Report:
    """The report in a mapping of headings to text, lists of text or mappings of text."""
    merged: dict[str, str] = {}
    for heading, value in sections.items():
        body = clean_text(_text_of_value(value, str(heading)))
        if not body:
            continue
        name = section_name(str(heading))
        if name == "":
            for inner, inner_text in split_sections(body).items():
                _append(merged, inner, inner_text)
        else:
            _append(merged, name, body)
    return Report(merged)


def section_name(heading: str) -> str:
    """The section that a heading opens; unknown headings in lower case with underscores.

    Example:
        >>> section_name("**Findings:**"), section_name("CONCLUSION"), section_name("Bone window")
        ('findings', 'impression', 'bone_window')
    """
    known = known_section(heading)
    return re.sub(r"[^\w]+", "_", _fold_heading(heading)).strip("_") if known is None else known


def known_section(heading: str) -> str | None:
    """The section that a heading opens, None if the heading is none of the known ones."""
    return _heading_table().get(_fold_heading(heading))


@cache
def context_sections() -> frozenset[str]:
    """Sections that say how or why the scan was made; their sentences are neutral."""
    return frozenset(_headings_data()["context"])


def split_sections(text: str) -> dict[str, str]:
    """Split text at known headings.

    A heading opens a section where it stands alone on a line ("Findings", "**Findings**"), or
    begins a line or a sentence and is followed by a colon ("FINDINGS: ...") or a dash
    ("IMPRESSION - ..."). "Findings suggest pneumonia." is therefore no heading. Headings of organs
    ("Lungs: ...") stay in the text of their section.
    """
    text = clean_text(text)
    sections: dict[str, str] = {}
    current, start = "", 0
    for match in _heading_pattern().finditer(text):
        _append(sections, current, text[start : match.start()])
        current = _heading_table()[_fold_heading(match.group("line") or match.group("inline"))]
        start = match.end()
    _append(sections, current, text[start:])
    return sections


def _append(sections: dict[str, str], name: str, body: str) -> None:
    body = body.strip(" \t\n")
    if not body:
        return
    sections[name] = f"{sections[name]}\n{body}" if name in sections else body


def _sections_of_json(text: str, path: Path) -> dict[str, str]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        raise ColipriError(
            f"report {path} is not valid JSON ({reason}); write an object such as "
            '{"findings": "...", "impression": "..."} or name the file .txt'
        ) from error
    if isinstance(content, str):
        return split_sections(content)
    if not isinstance(content, dict):
        raise ColipriError(
            f"report {path} holds a JSON {type(content).__name__}; it must be an object such as "
            '{"findings": "...", "impression": "..."}'
        )
    try:
        return report_from_sections(content).sections
    except ColipriError as error:
        raise ColipriError(f"report {path}: {error}") from error


def _text_of_value(value: Any, heading: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list):
        return "\n".join(_text_of_value(item, heading) for item in value)
    if isinstance(value, dict):  # organs inside findings: kept as "lungs: ..."
        parts = ((key, _text_of_value(item, str(key)).strip()) for key, item in value.items())
        return "\n".join(f"{key}: {part}" for key, part in parts if part)
    raise ColipriError(f"section '{heading}' holds a {type(value).__name__} instead of text")


@cache
def _headings_data() -> dict[str, Any]:
    data: dict[str, Any] = read_json(_HEADINGS_FILE)
    return data


@cache
def _heading_table() -> dict[str, str]:
    table: dict[str, str] = {}
    for name, headings in _headings_data()["sections"].items():
        table[_fold_heading(name)] = name
        table.update((_fold_heading(heading), name) for heading in headings)
    return table


@cache
def _heading_pattern() -> re.Pattern[str]:
    names = {heading for known in _headings_data()["sections"].values() for heading in known}
    by_length = sorted(names, key=lambda name: (-len(name), name))
    heading = "|".join(r"[ \t_]+".join(map(re.escape, name.split(" "))) for name in by_length)
    opening = r"[#*_=~>\[ \t]*(?:\(?\d{1,2}[.)][ \t]*|[IVX]{1,4}\.[ \t]*)?[*_\[ \t]*"
    closing = r"[*_=~\] \t]*"
    separator = rf"{closing}(?:[:\uff1a]{closing}|[ \t][-\u2013\u2014]+[ \t]{closing})"
    alone = rf"{closing}[-\u2013\u2014:\uff1a]*{closing}$"
    on_new_line = rf"^{opening}(?P<line>{heading})(?:{separator}|{alone})"
    # Inside a line only with a colon, after the end of a sentence, and capitalised.
    in_line = (
        rf"(?<=[.!?:;)])[ \t]+{opening}(?-i:(?=[A-ZÀ-Þ]))(?P<inline>{heading}){closing}:{closing}"
    )
    return re.compile(f"(?:{on_new_line}|{in_line})", re.IGNORECASE | re.MULTILINE)


def _fold_heading(heading: str) -> str:
    """Lower case, no accents, no decoration: what decides whether two headings are the same."""
    decomposed = unicodedata.normalize("NFKD", heading.casefold().replace("\u0131", "i"))
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return re.sub(r"[_\s]+", " ", letters).strip(" *#:=~[]()-.\u2013\u2014")
