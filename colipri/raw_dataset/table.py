"""cases.csv: one row a case, read strictly: a misread table corrupts everything after it."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.raw_dataset.cases import SPLITS

FIXED_COLUMNS = ("case", "subject", "study", "split", "image", "report")
_UNKNOWN = ("", "nan", "na", "n/a", "none", "null", "-1")
_VALUES = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}


def read_cases_table(path: Path, finding_names: Sequence[str]) -> list[dict[str, str]]:
    """Rows of cases.csv with exactly the known columns.

    Args:
        path: comma or semicolon separated, UTF-8 (with or without byte order mark).
        finding_names: the data set's findings; each needs a column.

    Raises:
        ColipriError: unreadable, no ``case`` column, unknown columns, duplicate or empty cases, or
            a row of another length; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ColipriError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise ColipriError(f"{path} cannot be read: {error.strerror}") from error
    header_line = text.splitlines()[0] if text.strip() else ""
    separator = ";" if header_line.count(";") > header_line.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = list(reader)
    if not rows:
        raise ColipriError(f"{path} is empty; it needs a header line with at least 'case'")
    header = [name.strip() for name in rows[0]]
    _check_header(path, header, finding_names)
    found: dict[str, int] = {}
    result = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ColipriError(
                f"{path}, row {number}: {len(row)} columns, the header has {len(header)} (a comma "
                "in a value needs quotes)"
            )
        values = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        case = values["case"]
        if not case:
            raise ColipriError(f"{path}, row {number}: the case has no name")
        if "/" in case or "\\" in case or case.startswith("."):
            raise ColipriError(
                f"{path}, row {number}: '{case}' is no case name (it is a file's stem)"
            )
        if case in found:
            raise ColipriError(f"{path}: case '{case}' is in rows {found[case]} and {number}")
        found[case] = number
        result.append(values)
    return result


def parse_split(value: str, where: str) -> str:
    """ "train", "val", "test" or ""; anything else is an error that names the place."""
    if value not in SPLITS:
        raise ColipriError(f"{where}: split '{value}' must be train, val, test or empty")
    return value


def parse_finding(value: str) -> int | None:
    """1, 0 or None (unknown).

    Raises:
        ValueError: none of these.
    """
    lowered = value.strip().lower()
    if lowered in _UNKNOWN:
        return None
    if lowered not in _VALUES:
        raise ValueError(value)
    return _VALUES[lowered]


def _check_header(path: Path, header: list[str], finding_names: Sequence[str]) -> None:
    known = [*FIXED_COLUMNS, *finding_names]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ColipriError(f"{path}: column '{repeated[0]}' appears twice")
    for needed in ("case", *finding_names):
        if needed not in header:
            near = difflib.get_close_matches(needed, header, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ColipriError(f"{path} has no column '{needed}'{hint}")
    for name in header:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ColipriError(
                f"{path}: unknown column '{name}'{hint}; findings must be listed in dataset.json"
            )
