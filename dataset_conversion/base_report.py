"""What became of every row of the source: conversion_report.csv and conversion_report.json."""

from __future__ import annotations

import csv
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from colipri.common.atomic import atomic_path, atomic_write_json

COLUMNS = ("row", "identifier", "case", "status", "reason")
CONVERTED, SKIPPED, PROBLEM = "converted", "skipped", "problem"


class ConversionReport:
    """Written as rows come; on leaving the block both files are complete, also after an error.

    Attributes:
        counts: rows per status.
        reasons: rows per reason, by what stands before the first ": ".
        first_problem: row and reason, for the message.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.counts: Counter[str] = Counter({CONVERTED: 0, SKIPPED: 0, PROBLEM: 0})
        self.reasons: Counter[str] = Counter()
        self.image_only = 0
        self.first_problem = ""
        self._started = time.perf_counter()
        self._stack = ExitStack()

    def __enter__(self) -> ConversionReport:
        path = self._stack.enter_context(atomic_path(self.folder / "conversion_report.csv"))
        file = self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()  # also after an error: the report says how far it went
        atomic_write_json(self.folder / "conversion_report.json", self.summary(kind is None))

    def add(self, status: str, row: str, identifier: str, case: str = "", reason: str = "") -> None:
        """Note what became of a row."""
        self.counts[status] += 1
        self._writer.writerow([_line(cell) for cell in (row, identifier, case, status, reason)])
        if status == CONVERTED:
            return
        self.reasons[_line(reason).partition(": ")[0]] += 1
        if status == PROBLEM and not self.first_problem:
            where = row or f"case {identifier}"
            self.first_problem = f"{where}: {reason}"

    def left_out(self) -> str:
        """ "12 rows are left out: 10 the image does not exist, 2 ..."; empty if there are none."""
        number = self.counts[SKIPPED] + self.counts[PROBLEM]
        if not number:
            return ""
        common = self.reasons.most_common(5)
        reasons = [f"{count} {reason}" for reason, count in common]
        rest = number - sum(count for _, count in common)
        if rest:
            reasons.append(f"{rest} other reasons")
        rows = "1 row is" if number == 1 else f"{number} rows are"
        return f"{rows} left out: {'; '.join(reasons)}"

    def summary(self, finished: bool) -> dict[str, Any]:
        """The content of conversion_report.json; rows = converted + skipped + problems."""
        return {
            "finished": finished,
            **self.settings,
            "rows": sum(self.counts.values()),
            "converted": self.counts[CONVERTED],
            "skipped": self.counts[SKIPPED],
            "problems": self.counts[PROBLEM],
            "without_report": self.image_only,
            "reasons": dict(self.reasons.most_common(200)),
            "seconds": round(time.perf_counter() - self._started, 1),
        }


def _line(text: str) -> str:
    return " ".join(text.split())
