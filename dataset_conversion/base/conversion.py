"""A conversion from start to end, and the report on every row of the source."""

from __future__ import annotations

import contextlib
import csv
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from colipri.common.atomic import atomic_path, atomic_write_json
from colipri.common.errors import EXIT_OK, ColipriError
from colipri.common.parallel import stream_parallel
from colipri.dataset_conversion.base.case_files import CaseTask, write_case
from colipri.dataset_conversion.base.source_case import CaseNames, SourceCase
from colipri.dataset_conversion.base.target import Target, claim_folder
from colipri.raw_dataset.cases import SPLITS
from colipri.raw_dataset.writing import CaseRow, write_cases, write_dataset_json

logger = logging.getLogger(__name__)
COLUMNS = ("row", "identifier", "case", "status", "reason")
CONVERTED, SKIPPED, PROBLEM = "converted", "skipped", "problem"


def convert_cases(
    cases: Iterator[SourceCase],
    target: Target,
    finding_names: Sequence[str],
    channel_names: Mapping[str, str],
    describe: Callable[[], Mapping[str, Any]],
) -> int:
    """Write a raw data set.

    Args:
        cases: every case of the source, also those that are skipped.
        target: where and how to write.
        finding_names: the label columns of cases.csv, in order.
        channel_names: as in dataset.json, {"0": "CT"}; every case has one image per channel.
        describe: returns more keys for dataset.json; called after the last case.

    Returns:
        The exit code.

    Raises:
        ColipriError: cases have problems (without --keep_going), none is left, nothing can be
            written, or the folder belongs to something else. dataset.json is then not written.
    """
    claim_folder(target)
    names = list(finding_names)
    endings: Counter[str] = Counter()
    with ConversionReport(target.folder, target.settings) as report:
        tasks = _tasks(cases, target, names, len(channel_names))
        rows = _rows(tasks, target, report, endings)
        with contextlib.closing(rows):
            counts = write_cases(target.folder, rows, names)
    description: dict[str, Any] = {"name": target.name, **describe()}
    ending = next(iter(endings)) if len(endings) == 1 else ""
    write_dataset_json(
        target.folder, channel_names, ending or ".nii.gz", names, counts, **description
    )
    splits = ", ".join(f"{counts[split]} {split or 'unassigned'}" for split in SPLITS)
    with_report = report.counts[CONVERTED] - report.image_only
    logger.info("%s: %d cases (%s)", target.folder, report.counts[CONVERTED], splits)
    logger.info("%d with a report, %d image-only", with_report, report.image_only)
    if report.left_out():
        logger.info("%s; see conversion_report.csv there", report.left_out())
    return EXIT_OK


def _rows(
    tasks: Iterator[CaseTask],
    target: Target,
    report: ConversionReport,
    endings: Counter[str],
) -> Generator[CaseRow, None, None]:
    """The rows of cases.csv, as their files become ready."""
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
            f"{report.first_problem} (all are in {target.folder / 'conversion_report.csv'}; fix "
            "them, or skip them with --keep_going)"
        )
    if not report.counts[CONVERTED]:
        raise ColipriError(
            f"no case could be converted; {report.left_out() or 'the source has none'}"
        )


def _tasks(
    cases: Iterator[SourceCase], target: Target, finding_names: Sequence[str], channels: int
) -> Iterator[CaseTask]:
    """Every case, named and checked, including skipped ones."""
    given = CaseNames()
    for case in cases:
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
        raise ColipriError(f"the split is not train, val or test: '{case.split}'")
    if case.make is None and len(case.images) != channels:
        raise ColipriError(f"{len(case.images)} images for {channels} channels")
    for name, value in case.findings.items():
        if name not in finding_names:
            raise ColipriError(f"an unknown finding: '{name}'")
        if value is not None and value not in (0, 1):
            raise ColipriError(f"a finding is not 0, 1 or unknown: '{name}' is {value!r}")


class ConversionReport:
    """Written row by row; both files are complete when the block ends, also after an error.

    Attributes:
        counts: rows per status.
        reasons: rows per reason, by the text before the first ": ".
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
        file = self._stack.enter_context(
            path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        )
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()  # also after an error: the report shows how far it went
        atomic_write_json(self.folder / "conversion_report.json", self.summary(kind is None))

    def add(self, status: str, row: str, identifier: str, case: str = "", reason: str = "") -> None:
        """Record what became of a row.

        Args:
            status: converted, skipped or problem.
            row: of the source.
            identifier: of the source.
            case: name of the converted case.
            reason: why it was skipped, or the problem.
        """
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
