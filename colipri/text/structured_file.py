"""Files of structured reports: FILE.jsonl, written while reports are structured, and resumable.

During a run, finished reports are appended to FILE.jsonl.unfinished, one line each; a killed run
loses at most the line that it was writing. At the end all lines are written to FILE.jsonl in the
order of the cases, atomically. A report whose text and method have not changed is reused from
either file. :func:`structure_by_rules` fills such a file by the rules, colipri.text.llm.many by a
language model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from colipri.common.atomic import atomic_path
from colipri.common.disk import write_error
from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.text.reports.report import ReportSource
from colipri.text.structured_report import StructuredReport, structure_report
from colipri.text.word_lists import word_lists_digest

logger = logging.getLogger(__name__)

# Increase this when the code of the rules changes their results.
_RULES_VERSION = 5
_SLICE = 50_000  # reports per pass; bounds the memory of the queue


class _Line(NamedTuple):
    """Position of the line of a case, and what it was made from."""

    path: Path
    position: int
    made_of: tuple[str, str]  # digest of the report, method


class StructuringResult(NamedTuple):
    """A structured report; ``structured`` is None if it has not changed since the last run."""

    structured: StructuredReport | None
    digest: str
    method: str


class StructuredFile:
    """The lines of one output file; a context manager.

    Args:
        output: the file to write; may exist from an earlier run.

    Raises:
        ColipriError: ``output`` exists but is another kind of file, or cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.unfinished = output.with_name(output.name + ".unfinished")
        self._lines: dict[str, _Line] = {}
        if output.exists():
            self._read(output, whole=True)
        if self.unfinished.exists():
            self._read(self.unfinished, whole=False)
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.unfinished.open("ab")
            self._file.truncate(self._end_of_last_line())
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._write_error(error) from error

    def __enter__(self) -> StructuredFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self.unfinished.exists() and self.unfinished.stat().st_size == 0:
            self.unfinished.unlink()

    def digest_of(self, case: str, method: str) -> str:
        """Digest of the report from which ``method`` made the line of ``case``; "" if none."""
        line = self._lines.get(case)
        return line.made_of[0] if line is not None and line.made_of[1] == method else ""

    def add(self, case: str, result: StructuringResult) -> None:
        """Append a finished report, which then survives a crash; skip an unchanged one.

        Raises:
            ColipriError: the file cannot be written, for example because the disk is full.
        """
        structured, digest, method = result
        if structured is None:
            return
        if structured.is_empty:
            logger.warning("case %s: the report holds no text", case)
        record = {"case": case, **structured.to_dict(), "source": digest, "method": method}
        content = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
        try:
            position = self._file.tell()
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise self._write_error(error) from error
        self._lines[case] = _Line(self.unfinished, position, (digest, method))

    def finish(self, cases: Iterable[str]) -> int:
        """Write the output with the available lines of ``cases``; returns their number."""
        self._file.close()
        found = [self._lines[case] for case in cases if case in self._lines]
        with (
            atomic_path(self.output) as temporary,
            ExitStack() as stack,
            temporary.open("wb") as file,
        ):
            readers = {
                path: stack.enter_context(path.open("rb")) for path in {line.path for line in found}
            }
            for line in found:
                readers[line.path].seek(line.position)
                file.write(readers[line.path].readline())
            file.flush()
            os.fsync(file.fileno())
        self.unfinished.unlink(missing_ok=True)
        return len(found)

    def _read(self, path: Path, whole: bool) -> None:
        """Index the lines; the incomplete last line of an unfinished file is ignored."""
        try:
            with path.open("rb") as file:
                position = 0
                for number, line in enumerate(file, start=1):
                    record = _record(line)
                    if record is None and whole:
                        raise ColipriError(
                            f"{path}, line {number}, is not a structured report: the file was not "
                            "written by this command; give another name with -o"
                        )
                    if record is not None:
                        made_of = (str(record.get("source", "")), str(record.get("method", "")))
                        self._lines[record["case"]] = _Line(path, position, made_of)
                    position += len(line)
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error

    def _end_of_last_line(self) -> int:
        """Size of the unfinished file without an incomplete last line, in bytes."""
        size = self.unfinished.stat().st_size
        with self.unfinished.open("rb") as file:
            end = size
            while end > 0:  # backwards in chunks: the incomplete line may be long
                start = max(0, end - (1 << 16))
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
        return 0

    def _write_error(self, error: OSError) -> ColipriError:
        return write_error(self.unfinished, error)


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is incomplete or not a structured report."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    known = isinstance(record, dict) and isinstance(record.get("case"), str)
    return record if known and isinstance(record.get("sections"), dict) else None


def rules_method() -> str:
    """Name of the rules with a digest of their word lists: edited lists are another method."""
    return f"rules {_RULES_VERSION} ({word_lists_digest()})"


def structure_by_rules(
    sources: Sequence[ReportSource], file: StructuredFile, num_processes: int
) -> dict[str, str]:
    """Structure the reports that ``file`` does not have yet, by the rules.

    Args:
        sources: where the reports are stored.
        file: gets the results.
        num_processes: number of worker processes.

    Returns:
        Case -> problem, for the reports that could not be read; the others are in ``file``.

    Raises:
        ColipriError: a worker process died, or the disk is full.
    """
    problems: dict[str, str] = {}
    method = rules_method()
    work = partial(structure_source, method=method)
    for start in range(0, len(sources), _SLICE):
        part = sources[start : start + _SLICE]
        items = [(source, file.digest_of(source.case, method)) for source in part]
        for outcome in run_parallel(work, items, num_processes, "Structuring reports"):
            case = outcome.item[0].case
            if outcome.result is None:
                problems[case] = outcome.problem or "unknown problem"
                logger.debug("%s", outcome.details)
            else:
                file.add(case, outcome.result)
    return problems


def structure_source(item: tuple[ReportSource, str], method: str) -> StructuringResult:
    """Read and structure one report by the rules.

    Args:
        item: the report, and the digest for which a result exists already ("" for none).
        method: name of the method to record.
    """
    source, known = item
    report = source.load()
    structured = None if report.digest == known else structure_report(report)
    return StructuringResult(structured, report.digest, method)
