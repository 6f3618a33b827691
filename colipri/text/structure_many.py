"""Many reports into one structured file: by rules in processes, by an endpoint in threads."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.common.progress import progress
from colipri.text.endpoint import EndpointStructurer
from colipri.text.endpoint_client import EndpointError, EndpointUnusableError
from colipri.text.report_sources import ReportSource, digest_of_report
from colipri.text.structured_file import StructuredFile
from colipri.text.structuring import StructuredReport, structure_report

logger = logging.getLogger(__name__)

# Raise this when the same tables and text give another result.
_RULES_VERSION = 1
_SLICE = 50_000  # reports waiting at a time; bounds the memory of the queue
_FAILURES_IN_A_ROW = 8  # then it is not the reports


class _Done(NamedTuple):
    """A structured report; None where it has not changed since the last run."""

    structured: StructuredReport | None
    digest: str
    method: str


@cache
def rules_method() -> str:
    """Names the rules with a digest of their tables, so that edited tables are noticed."""
    digest = hashlib.sha256()
    for table in sorted(Path(__file__).parent.glob("*.json")):
        digest.update(table.read_bytes())
    return f"rules {_RULES_VERSION} ({digest.hexdigest()[:8]})"


def structure_by_rules(
    sources: Sequence[ReportSource], file: StructuredFile, num_processes: int
) -> dict[str, str]:
    """Structure what ``file`` does not have yet.

    Returns:
        Case -> problem, for the reports that could not be read; the others are in ``file``.

    Raises:
        ColipriError: a worker process died, or the disk is full.
    """
    problems: dict[str, str] = {}
    method = rules_method()
    for start in range(0, len(sources), _SLICE):
        items = [
            (source, file.digest_of(source.case, method))
            for source in sources[start : start + _SLICE]
        ]
        work = partial(_by_rules, method=method)
        for outcome in run_parallel(work, items, num_processes, "Structuring reports"):
            source = outcome.item[0]
            if outcome.problem is not None:
                problems[source.case] = outcome.problem
                logger.debug("%s", outcome.details)
            elif outcome.result is not None:
                _keep(file, source.case, outcome.result)
    return problems


def structure_by_endpoint(
    sources: Sequence[ReportSource],
    file: StructuredFile,
    structurer: EndpointStructurer,
    concurrency: int,
    fall_back_on_rules: bool,
    status: Callable[[], str] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Structure what ``file`` does not have yet, ``concurrency`` reports at a time.

    Args:
        fall_back_on_rules: use the rules for a report that no valid answer was to be had for.
        status: what the progress bar shows behind the rate.

    Returns:
        Case -> problem for what is missing in ``file``, and the cases that the rules stood in for.

    Raises:
        ColipriError: the endpoint cannot be used at all; what is finished is in ``file``.
    """
    problems: dict[str, str] = {}
    replaced: list[str] = []
    failures = 0
    work = partial(_by_endpoint, structurer=structurer, file=file)
    outcomes = _in_threads(work, sources, concurrency, structurer.client.stop)
    for source, result in progress(
        outcomes, "Structuring reports", total=len(sources), unit="report", status=status
    ):
        if isinstance(result, _Done):
            failures = 0
            _keep(file, source.case, result)
            continue
        if _is_fatal(result):
            raise result
        if isinstance(result, EndpointError):
            failures += 1
            if failures >= max(_FAILURES_IN_A_ROW, 2 * concurrency):
                raise EndpointUnusableError(
                    f"{failures} reports in a row failed, the last because: {result}; finished "
                    "reports are kept"
                )
            if fall_back_on_rules:
                _keep(file, source.case, _by_rules((source, ""), "rules (fallback)"))
                replaced.append(source.case)
                continue
        problems[source.case] = str(result)
    return problems, replaced


def _keep(file: StructuredFile, case: str, done: _Done) -> None:
    if done.structured is None:
        return
    if done.structured.is_empty:
        logger.warning("case %s: the report holds no text", case)
    file.add(case, done.structured, done.digest, done.method)


def _by_rules(item: tuple[ReportSource, str], method: str) -> _Done:
    source, known = item
    report = source.load()
    digest = digest_of_report(report)
    return _Done(None if digest == known else structure_report(report), digest, method)


def _by_endpoint(
    source: ReportSource, structurer: EndpointStructurer, file: StructuredFile
) -> _Done:
    report = source.load()
    digest = digest_of_report(report)
    if digest == file.digest_of(source.case, structurer.method):
        return _Done(None, digest, structurer.method)
    return _Done(structurer.structure(report), digest, structurer.method)


def _is_fatal(error: Exception) -> bool:
    """Whether the error is not about one report."""
    return isinstance(error, EndpointUnusableError) or not isinstance(error, ColipriError)


def _in_threads(
    work: Callable[[ReportSource], _Done],
    sources: Sequence[ReportSource],
    num_threads: int,
    stop: Callable[[], None],
) -> Iterator[tuple[ReportSource, _Done | Exception]]:
    """Results in the order in which they finish; exceptions are results.

    The threads are daemons: Ctrl-C ends the program at once instead of after the last time-out.
    """
    waiting: queue.SimpleQueue[ReportSource] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[ReportSource, _Done | Exception]] = queue.SimpleQueue()
    for source in sources:
        waiting.put(source)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            try:
                source = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((source, work(source)))
            except Exception as error:  # noqa: BLE001 - handed to the main thread
                if _is_fatal(error):
                    is_over.set()  # the main thread raises it: ask nothing more
                finished.put((source, error))

    for _ in range(min(num_threads, len(sources))):
        threading.Thread(target=serve, daemon=True).start()
    try:
        for _ in sources:
            yield finished.get()
    finally:
        is_over.set()
        stop()
