"""Structured reports of raw cases: from the data set's structured_reports.jsonl, or by the rules.

``colipri_structure_reports -i DATASET_FOLDER -o DATASET_FOLDER/structured_reports.jsonl`` writes
that file. Everything that reads reports of raw cases (fingerprint, preprocessing, verification,
evaluation with ``--source raw``) calls :func:`load_structured_report`, so all of them see the same
sentences. Lines are found by the digest of the report's text: cases may be renamed or joined into
collections.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.paths import raw_folder
from colipri.raw_dataset.cases import Case
from colipri.text.reports.report import read_report
from colipri.text.structured_report import StructuredReport, structure_report

STRUCTURED_REPORTS = "structured_reports.jsonl"
# Starting worker processes takes longer than structuring fewer reports than this.
_WORTH_PROCESSES = 1000


def load_structured_report(case: Case) -> StructuredReport | None:
    """The structured report of a case; None for an image-only case.

    Raises:
        ColipriError: the report cannot be read or has no text, or the data set's
            structured_reports.jsonl does not contain it. The rules never replace a missing line:
            mixing two methods must not go unnoticed.
    """
    if case.report is None:
        return None
    report = read_report(case.report)
    path = structured_reports_file(case)
    if path is None:
        structured = structure_report(report)
    else:
        status = path.stat()
        position = _positions(path, status.st_size, status.st_mtime_ns).get(report.digest)
        if position is None:
            raise ColipriError(
                f"the report {case.report} is not in {path} (did it change?); run "
                f"colipri_structure_reports -i {path.parent} -o {path} again, or remove that file "
                "to use the rules"
            )
        with path.open("rb") as file:
            file.seek(position)
            structured = StructuredReport.from_json(file.readline().decode("utf-8"))
    if structured.is_empty:
        raise ColipriError(
            f"the report {case.report} is empty; remove it (the case is then image-only) or fix it"
        )
    return structured


def structured_reports_file(case: Case) -> Path | None:
    """The structured_reports.jsonl of the data set that the case belongs to, if there is one."""
    if not case.dataset:
        return None
    path = raw_folder() / case.dataset / STRUCTURED_REPORTS
    return path if path.is_file() else None


def load_structured_reports(
    cases: Sequence[Case], num_processes: int
) -> tuple[list[StructuredReport], dict[str, str]]:
    """Load every report of a data set once, in parallel if there are many.

    Args:
        cases: cases without a report are skipped.
        num_processes: worker processes for large data sets.

    Returns:
        One report per study in the order of the cases (reconstructions of a scan share the report
        and must not count as duplicates), and identifier -> problem for unusable reports.
    """
    by_file: dict[Path, Case] = {}
    for case in cases:
        if case.report is not None:
            by_file.setdefault(case.report, case)
    unique = list(by_file.values())
    processes = num_processes if len(unique) >= _WORTH_PROCESSES else 1
    structured: dict[Path | None, StructuredReport] = {}
    broken: dict[Path | None, str] = {}
    for outcome in run_parallel(load_structured_report, unique, processes, "reports"):
        if outcome.result is None:
            broken[outcome.item.report] = outcome.problem or "unknown problem"
        else:
            structured[outcome.item.report] = outcome.result
    problems = {case.identifier: broken[case.report] for case in cases if case.report in broken}
    by_study: dict[str, StructuredReport] = {}
    for case in cases:
        if case.report in structured:
            by_study.setdefault(case.study, structured[case.report])
    return list(by_study.values()), problems


@lru_cache(maxsize=4)
def _positions(path: Path, size: int, changed: int) -> dict[str, int]:
    """Digest of a report -> offset of its line in bytes.

    ``size`` and ``changed`` are part of the cache key: an edited file is read again.
    """
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
