"""Radiology reports: reading the file and splitting its text into sections.

A report is a text file with headings in any hospital's style, or a JSON object with one entry per
section. No text is dropped: text before the first heading becomes the section "".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.text.reports.cleaning import clean_text, decode_report
from colipri.text.reports.headings import FINDINGS, IMPRESSION, fold_heading, known_section
from colipri.text.reports.layout import find_headings
from colipri.text.word_lists import word_list

# Cells of tables and JSON objects that may hold a whole report with headings of its own.
_MAY_HOLD_HEADINGS = ("", FINDINGS, IMPRESSION)


@dataclass(frozen=True)
class Report:
    """A report as text, by section, in the order of the file.

    Attributes:
        sections: section name ("findings", "impression", "clinical_information", "technique",
            "comparison", ...; "" for text under no heading) to clean text, never empty.
        encoding: how the file was decoded ("" if the report is not from a file).
        notes: what the reader had to guess, one line each; for verification, not for training.
    """

    sections: dict[str, str]
    encoding: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if no section has text."""
        return not self.sections

    @property
    def text(self) -> str:
        """All sections, in order, without headings."""
        return "\n".join(self.sections.values())

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with the words, not with encoding or line ends."""
        content = json.dumps(self.sections, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class ReportSource:
    """Where one report is stored.

    Attributes:
        case: name of the case.
        path: the report's file, or the table that contains it.
        cells: of a table: pairs of heading and text; None for a file.
    """

    case: str
    path: Path
    cells: tuple[tuple[str, str], ...] | None = None

    def load(self) -> Report:
        """Read the report.

        Raises:
            ColipriError: the file cannot be read or is not a report.
        """
        if self.cells is None:
            return read_report(self.path)
        return report_from_sections(dict(self.cells))


def read_report(path: Path | str) -> Report:
    """Read a ``.txt`` or ``.json`` report (files with other suffixes are read as text).

    Text may be UTF-8 with or without byte order mark, UTF-16, or Windows-1252 / Latin-1. JSON must
    be an object of sections whose values are text, lists of text, or objects of text.

    Raises:
        ColipriError: the file is missing, unreadable, or JSON of another layout.
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
    """Parse a report from a string, for example from a cell of a table."""
    return Report(split_sections(text))


def report_from_sections(sections: Mapping[str, Any]) -> Report:
    """Build a report from a mapping of headings to text, lists of text or mappings of text."""
    merged: dict[str, str] = {}
    for heading, value in sections.items():
        body = clean_text(_text_of_value(value, str(heading)))
        if not body:
            continue
        name = section_name(str(heading))
        if name in _MAY_HOLD_HEADINGS:
            for inner, inner_text in split_sections(body).items():
                _append(merged, inner or name, inner_text)
        else:
            _append(merged, name, body)
    return Report(merged)


def section_name(heading: str) -> str:
    """The section that a heading opens; unknown headings become lower case with underscores.

    Example:
        >>> section_name("**Findings:**"), section_name("CONCLUSION"), section_name("Bone window")
        ('findings', 'impression', 'bone_window')
    """
    known = known_section(heading)
    return re.sub(r"[^\w]+", "_", fold_heading(heading)).strip("_") if known is None else known


@cache
def context_sections() -> frozenset[str]:
    """Sections about how or why the scan was made; all their sentences are neutral."""
    return frozenset(word_list("headings")["context"])


def split_sections(text: str) -> dict[str, str]:
    """Split text at its headings (:func:`colipri.text.reports.layout.find_headings`).

    "Findings suggest pneumonia." has no heading. Headings of organs ("Lungs: ...") stay in the text
    of their section.

    Returns:
        Section name to clean text, in the order of the text.
    """
    text = clean_text(text)
    sections: dict[str, str] = {}
    current, start = "", 0
    for heading in find_headings(text):
        _append(sections, current, text[start : heading.start])
        current, start = heading.section, heading.end
    _append(sections, current, text[start:])
    return sections


def _append(sections: dict[str, str], name: str, body: str) -> None:
    body = body.strip(" \t\n|")
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
            f"report {path} contains a JSON {type(content).__name__}; it must be an object such as "
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
    raise ColipriError(f"section '{heading}' contains a {type(value).__name__} instead of text")
