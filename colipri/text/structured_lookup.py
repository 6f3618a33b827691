"""Structured reports that a data set brings along, found by the text that they were made of.

``colipri_structure_reports -i DATASET_FOLDER -o DATASET_FOLDER/structured_reports.jsonl`` puts them
there; preprocessing then takes them instead of the rules' result. Lookup is by the digest of the
text, so that cases may be renamed or joined into collections.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.text.report import Report
from colipri.text.report_sources import digest_of_report
from colipri.text.structuring import StructuredReport, structure_report

STRUCTURED_REPORTS = "structured_reports.jsonl"


def structured_or_by_rules(report: Report, dataset_folder: Path) -> StructuredReport:
    """The structured report that the data set brings along; by rules if it brings none at all.

    Raises:
        ColipriError: the data set brings structured reports, but not of this text: a mixture of
            two methods must not come about unnoticed.
    """
    path = dataset_folder / STRUCTURED_REPORTS
    if not path.is_file():
        return structure_report(report)
    status = path.stat()
    position = _positions(path, status.st_size, status.st_mtime_ns).get(digest_of_report(report))
    if position is None:
        raise ColipriError(
            f"its report is not in {path} (has it changed?); run colipri_structure_reports -i "
            f"{dataset_folder} -o {path} again, or remove that file to use the rules"
        )
    with path.open("rb") as file:
        file.seek(position)
        return StructuredReport.from_json(file.readline().decode("utf-8"))


@lru_cache(maxsize=4)
def _positions(path: Path, size: int, changed: int) -> dict[str, int]:
    """Digest -> where its line begins; read again when the file's size or time has changed."""
    positions: dict[str, int] = {}
    position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                positions[str(json.loads(line)["source"])] = position
            except (ValueError, KeyError, TypeError) as error:
                raise ColipriError(
                    f"{path}, line {number}, was not written by colipri_structure_reports"
                ) from error
            position += len(line)
    return positions
