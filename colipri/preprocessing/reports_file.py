"""reports.jsonl: structured reports, found by case without keeping all of them in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_text
from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from colipri.text.structured_report import StructuredReport


class ReportsFile:
    """Random access to the lines of a reports.jsonl; the offsets are read once.

    Raises:
        ColipriError: the file is missing or a line is not what it should be (with its number).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[str, int] = {}
        try:
            with path.open("rb") as file:
                position = 0
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        self.offsets[self._case_of(line, number)] = position
                    position += len(line)
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error

    def get(self, case: str) -> StructuredReport | None:
        """The report of ``case``, or None if it has none."""
        from colipri.text.structured_report import StructuredReport

        if case not in self.offsets:
            return None
        with self.path.open("rb") as file:
            file.seek(self.offsets[case])
            line = file.readline()
        return StructuredReport.from_json(line.decode("utf-8"))

    def _case_of(self, line: bytes, number: int) -> str:
        try:
            content = json.loads(line)
            if not isinstance(content["sections"], dict):
                raise TypeError("sections is no object")
            return str(content["case"])
        except (ValueError, KeyError, TypeError) as error:
            raise ColipriError(
                f"{self.path}, line {number}: not an object with case and sections ({error})"
            ) from error


def write_reports(path: Path, reports: Mapping[str, Any]) -> None:
    """Write {case: StructuredReport.to_dict()} as JSON lines, sorted, whole or not at all."""
    lines = [
        json.dumps({"case": case, **reports[case]}, ensure_ascii=False) + "\n"
        for case in sorted(reports)
    ]
    atomic_write_text(path, "".join(lines))
