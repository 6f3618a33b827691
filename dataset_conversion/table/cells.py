"""Cells of tables as identifiers, texts and labels, with what spreadsheets do to them."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from colipri.common.errors import ColipriError
from colipri.raw_dataset.table import parse_finding

_EMPTY = ("", "nan", "none", "null", "n/a", "#n/a")
_SHORTENED = re.compile(r"\d(\.\d+)?[eE]\+\d+")  # 1.23457E+15: a long number, cut by a spreadsheet


def identifier(cell: Any, column: str) -> str:
    """A name or number as text; empty where there is none.

    Raises:
        ColipriError: a spreadsheet has turned it into a date or cut its digits.
    """
    if isinstance(cell, (datetime.date, datetime.time)):
        raise ColipriError(
            f"a spreadsheet has made a date of '{column}', format the column as text: {cell}"
        )
    if isinstance(cell, float):
        if math.isnan(cell):
            return ""
        if abs(cell) >= 2**53:
            raise _cut(column, cell)
        return str(int(cell)) if cell.is_integer() else str(cell)
    value = text(cell)
    if _SHORTENED.fullmatch(value):
        raise _cut(column, value)
    return "" if value.lower() in _EMPTY else value


def identifier_or_date(cell: Any, column: str) -> str:
    """As :func:`identifier`; a date is fine (studies are often named by theirs)."""
    if isinstance(cell, datetime.datetime):
        midnight = cell.time() == datetime.time()
        return cell.date().isoformat() if midnight else cell.isoformat(timespec="seconds")
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return identifier(cell, column)


def text(cell: Any) -> str:
    """A cell as text with its line breaks, without surrounding blanks."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(cell).strip()


def report_text(cell: Any) -> str | dict[str, str]:
    """A report: text, or in JSON lines an object of sections."""
    if isinstance(cell, Mapping):
        return {str(name): text(value) for name, value in cell.items()}
    value = text(cell)
    return "" if value.lower() in _EMPTY else value


def label(cell: Any, column: str) -> int | None:
    """1, 0 or None (unknown).

    Raises:
        ColipriError: any other value.
    """
    try:
        return parse_finding(text(cell))
    except ValueError:
        raise ColipriError(f"a label is neither 0, 1 nor empty: '{column}' is '{cell}'") from None


def _cut(column: str, cell: Any) -> ColipriError:
    return ColipriError(
        f"a spreadsheet has cut the digits of '{column}', format the column as text: {cell}"
    )
