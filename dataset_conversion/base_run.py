"""A conversion from start to end: claim the folder, write the cases, tell what was left out."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.common.parallel import stream_parallel
from colipri.dataset_conversion.base import Converter, SourceCase
from colipri.dataset_conversion.base_case import CaseTask, write_case
from colipri.dataset_conversion.base_folder import claim_folder
from colipri.dataset_conversion.base_names import CaseNames
from colipri.dataset_conversion.base_options import Target
from colipri.dataset_conversion.base_report import CONVERTED, PROBLEM, SKIPPED, ConversionReport
from colipri.raw_dataset.cases import SPLITS
from colipri.raw_dataset.writing import CaseRow, write_cases, write_dataset_json

logger = logging.getLogger(__name__)


def convert_cases(converter: Converter, target: Target) -> int:
    """Write the raw data set that ``converter`` describes.

    Raises:
        ColipriError: cases have problems (without --keep_going), none is left, nothing can be
            written, or the folder holds something else. dataset.json is then not written.
    """
    claim_folder(target)
    names = list(converter.finding_names())
    endings: Counter[str] = Counter()
    with ConversionReport(target.folder, target.settings) as report:
        rows = _rows(converter, target, report, names, endings)
        with contextlib.closing(rows):
            counts = write_cases(target.folder, rows, names)
    description: dict[str, Any] = {"name": target.name, "licence": converter.licence}
    if converter.reference:
        description["reference"] = converter.reference
    description |= converter.description()
    ending = next(iter(endings)) if len(endings) == 1 else ""
    write_dataset_json(
        target.folder, converter.channel_names, ending or ".nii.gz", names, counts, **description
    )
    splits = ", ".join(f"{counts[split]} {split or 'unassigned'}" for split in SPLITS)
    with_report = report.counts[CONVERTED] - report.image_only
    logger.info("%s: %d cases (%s)", target.folder, report.counts[CONVERTED], splits)
    logger.info("%d with a report, %d image-only", with_report, report.image_only)
    if report.left_out():
        logger.info("%s; see conversion_report.csv there", report.left_out())
    return EXIT_OK


def _rows(
    converter: Converter,
    target: Target,
    report: ConversionReport,
    finding_names: Sequence[str],
    endings: Counter[str],
) -> Generator[CaseRow, None, None]:
    """The rows of cases.csv, as their files get ready."""
    tasks = _tasks(converter, target, finding_names)
    for outcome in stream_parallel(write_case, tasks, target.num_processes, "Converting"):
        task, case = outcome.item, outcome.item.case
        if task.status:
            report.add(task.status, case.row, case.identifier, reason=task.reason)
            continue
        if outcome.result is None:
            logger.debug("%s", outcome.details)
            report.add(PROBLEM, case.row, case.identifier, task.name, outcome.problem or "")
            continue
        if outcome.result.row is None:
            raise ColipriError(outcome.result.stop)
        row = outcome.result.row
        report.add(CONVERTED, case.row, case.identifier, row.case, outcome.result.note)
        report.image_only += row.report is None
        endings.update(outcome.result.endings)
        yield row
    problems = report.counts[PROBLEM]
    if problems and not target.keep_going:
        raise ColipriError(
            f"{problems} of {sum(report.counts.values())} rows have problems, the first is "
            f"{report.first_problem} (all are in {target.folder / 'conversion_report.csv'}; mend "
            "them, or leave them out with --keep_going)"
        )
    if not report.counts[CONVERTED]:
        raise ColipriError(
            f"no case could be converted; {report.left_out() or 'the source has none'}"
        )


def _tasks(
    converter: Converter, target: Target, finding_names: Sequence[str]
) -> Iterator[CaseTask]:
    """Every case, named and checked; also those that are left out."""
    given = CaseNames()
    channels = len(converter.channel_names)
    for case in converter.cases():
        name, status, reason = "", SKIPPED if case.skipped else "", case.skipped
        if not status:
            try:
                _check(case, channels, finding_names)
                name = given.add(case.identifier, case.row)
            except ColipriError as error:
                status, reason = PROBLEM, str(error)
        tidy = replace(case, subject=_line(case.subject), study=_line(case.study))
        yield CaseTask(tidy, name, target.folder, target.mode, channels, status, reason)


def _check(case: SourceCase, channels: int, finding_names: Sequence[str]) -> None:
    if case.problem:
        raise ColipriError(case.problem)
    if case.split not in SPLITS:
        raise ColipriError(f"the split is neither train, val nor test: '{case.split}'")
    if case.make is None and len(case.images) != channels:
        raise ColipriError(f"{len(case.images)} images for {channels} channels")
    for name, value in case.findings.items():
        if name not in finding_names:
            raise ColipriError(f"an unknown finding: '{name}'")
        if value is not None and value not in (0, 1):
            raise ColipriError(f"a finding is neither 0, 1 nor unknown: '{name}' is {value!r}")


def _line(text: str) -> str:
    return " ".join(text.split())
