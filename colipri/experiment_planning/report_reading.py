"""Reading and structuring the reports of a data set for its fingerprint, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.raw_dataset.cases import Case

if TYPE_CHECKING:
    from colipri.text.structuring import StructuredReport

# Starting processes takes longer than structuring so many reports here.
WORTH_PROCESSES = 1000


def read_reports(
    cases: Sequence[Case], num_processes: int
) -> tuple[list[StructuredReport], dict[str, str]]:
    """Structure every report file once.

    Args:
        cases: those without a report are passed over.

    Returns:
        One report a study (reconstructions repeat it and must not count as duplicates), in the
        order of the cases; and the problems of reports that cannot be used, by case.
    """
    paths = list(dict.fromkeys(case.report for case in cases if case.report is not None))
    processes = num_processes if len(paths) >= WORTH_PROCESSES else 1
    structured: dict[Path, StructuredReport] = {}
    broken: dict[Path, str] = {}
    for outcome in run_parallel(structured_report, paths, processes, "reports"):
        if outcome.result is None:
            broken[outcome.item] = outcome.problem or "unknown problem"
        else:
            structured[outcome.item] = outcome.result
    problems = {
        case.identifier: broken[case.report]
        for case in cases
        if case.report is not None and case.report in broken
    }
    by_study: dict[str, StructuredReport] = {}
    for case in cases:
        if case.report is not None and case.report in structured:
            by_study.setdefault(case.study, structured[case.report])
    return list(by_study.values()), problems


def structured_report(path: Path) -> StructuredReport:
    """Read and structure one report.

    Raises:
        ColipriError: it cannot be read, or says nothing.
    """
    from colipri.text.report import read_report
    from colipri.text.structuring import structure_report

    report = structure_report(read_report(path))
    if report.is_empty:
        raise ColipriError(f"report {path} is empty; remove it (image-only case) or mend it")
    return report
