"""Mistakes in dataset.json and cases.csv: fatal for reading, collected by the verification.

Reading takes a handler. The default one raises at the first mistake, because a misread table
corrupts everything after it; the verification's one takes note and reading goes on with the value
that is safest (unknown, no split, ...), so that all mistakes are found in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from colipri.common.errors import ColipriError
from colipri.raw_dataset.verification_codes import CODES


@dataclass(frozen=True)
class TableProblem:
    """One mistake: its code (of CODES), the case or "", the file, and what is wrong."""

    code: str
    case: str
    file: Path
    what: str


ProblemHandler = Callable[[TableProblem], None]


def refuse(problem: TableProblem) -> NoReturn:
    """The handler of everybody but the verification.

    Raises:
        ColipriError: always; one line with file, case, what is wrong and what to do.
    """
    where = f"{problem.file}, case {problem.case}" if problem.case else str(problem.file)
    raise ColipriError(f"{where}: {problem.what}; {CODES[problem.code].remedy}")
