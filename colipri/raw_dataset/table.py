"""cases.csv, one row per case, read strictly: a misread table corrupts everything after it.

Mistakes go to a handler. The default one raises at the first mistake. The verification's handler
collects them, and reading continues with the safest value (unknown, no split, ...), so that one
pass finds all mistakes.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from colipri.common.csv_text import csv_rows
from colipri.common.errors import ColipriError
from colipri.common.names import name_problem
from colipri.raw_dataset.cases import SPLITS
from colipri.raw_dataset.verification.codes import CODES

FIXED_COLUMNS = ("case", "subject", "study", "split", "image", "report")
_DELIMITERS = ",;\t"  # a bar separates the images of a case
_UNKNOWN = ("", "nan", "na", "n/a", "none", "null", "-1")
_VALUES = {"0": 0, "-0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}
_WHOLE = re.compile(r"\+?(-?\d+)(?:[.,]0*)?")


@dataclass(frozen=True)
class TableProblem:
    """One mistake.

    Attributes:
        code: a key of CODES.
        case: the case's identifier; "" if it concerns the whole data set.
        file: the file that contains it.
        what: what is wrong.
    """

    code: str
    case: str
    file: Path
    what: str


ProblemHandler = Callable[[TableProblem], None]


def refuse(problem: TableProblem) -> NoReturn:
    """Raise an error for the mistake: the handler of everything but the verification.

    Raises:
        ColipriError: always; one line with file, case, what is wrong and what to do.
    """
    where = f"{problem.file}, case {problem.case}" if problem.case else str(problem.file)
    raise ColipriError(f"{where}: {problem.what}; {CODES[problem.code].remedy}")


def read_cases_table(
    path: Path, finding_names: Sequence[str], on_problem: ProblemHandler = refuse
) -> list[dict[str, str]]:
    """Read the rows of cases.csv, whose columns must all be known.

    Args:
        path: comma or semicolon separated, UTF-8 (with or without byte order mark).
        finding_names: the data set's findings; each needs a column.
        on_problem: called for an unreadable file, a missing ``case`` column, unknown columns, rows
            of the wrong length, and duplicate or unnamed cases; rows with a problem are skipped.

    Raises:
        ColipriError: by the default handler, at the first problem.
    """
    lines = _read_lines(path, on_problem)
    if not lines:
        return []
    header = [name.strip() for name in lines[0][1]]
    _check_header(path, header, finding_names, on_problem)
    if "case" not in header:
        return []
    found: dict[str, int] = {}
    result = []
    for number, row in lines[1:]:
        if not any(cell.strip() for cell in row):
            continue
        values = _row_values(path, number, header, row, on_problem)
        if values is None:
            continue
        case = values["case"]
        if case in found:
            what = f"case '{case}' is in lines {found[case]} and {number}"
            on_problem(TableProblem("case_twice", case, path, what))
            continue
        found[case] = number
        result.append(values)
    return result


def parse_split(value: str) -> str | None:
    """The value itself if it is "train", "val", "test" or ""; otherwise None."""
    return value if value in SPLITS else None


def parse_finding(value: str) -> int | None:
    """1, 0 or None (unknown).

    Raises:
        ValueError: none of these.
    """
    lowered = value.strip().lower()
    number = _WHOLE.fullmatch(lowered)  # spreadsheets write 1.0 and -1.00
    if number is not None:
        lowered = number[1]
    if lowered in _UNKNOWN:
        return None
    if lowered not in _VALUES:
        raise ValueError(value)
    return _VALUES[lowered]


def _read_lines(path: Path, on_problem: ProblemHandler) -> list[tuple[int, list[str]]]:
    """Line number (of the row's last line, counted from 1) and cells of every row."""
    what = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    else:
        if not text.strip():
            what = "empty; it needs a header line with at least 'case'"
    if what:
        on_problem(TableProblem("cases_csv_invalid", "", path, what))
        return []
    number = 0
    rows = []
    try:
        for number, row in csv_rows(io.StringIO(text, newline=""), delimiters=_DELIMITERS):
            rows.append((number, row))
    except csv.Error as error:
        what = (
            f"not valid CSV after line {number} ({error}); a quote inside a quoted cell must be "
            "doubled, and every quoted cell closed"
        )
        on_problem(TableProblem("cases_csv_invalid", "", path, what))
        return []
    return rows


def _row_values(
    path: Path, number: int, header: list[str], row: list[str], on_problem: ProblemHandler
) -> dict[str, str] | None:
    if len(row) != len(header):
        what = (
            f"line {number} has {len(row)} columns, the header has {len(header)} (put a value that "
            "contains a comma in quotes)"
        )
        on_problem(TableProblem("case_row_invalid", "", path, what))
        return None
    values = {name: _value(cell) for name, cell in zip(header, row, strict=True)}
    case = values["case"]
    if not case or "/" in case or "\\" in case or case.startswith("."):
        shown = row[header.index("case")].strip()
        what = f"line {number}: '{shown}' is not a valid case name (it must be a file's stem)"
        on_problem(TableProblem("case_row_invalid", "", path, what))
        return None
    problem = name_problem(case)
    if problem:
        on_problem(TableProblem("case_name_unusable", case, path, f"line {number}: {problem}"))
        return None
    return values


def _value(cell: str) -> str:
    """A cell without blanks; "nan" is what pandas writes for an empty one."""
    value = cell.strip()
    return "" if value.lower() == "nan" else value


def _check_header(
    path: Path, header: list[str], finding_names: Sequence[str], on_problem: ProblemHandler
) -> None:
    known = dict.fromkeys((*FIXED_COLUMNS, *finding_names))
    counts = Counter(header)
    problems = [f"column '{name}' appears twice" for name, count in counts.items() if count > 1]
    for needed in ("case", *finding_names):
        if needed not in counts:
            problems.append(f"no column '{needed}'{_hint(needed, header)}")
    for name in header:
        if name not in known:
            problems.append(
                f"unknown column '{name}'{_hint(name, list(known))}; findings must be listed in "
                "dataset.json"
            )
    for what in problems:
        on_problem(TableProblem("cases_csv_invalid", "", path, what))


def _hint(name: str, candidates: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
