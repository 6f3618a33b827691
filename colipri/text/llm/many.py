"""Structuring many reports with a language model: requests in threads, results into one file."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from colipri.common.display import progress
from colipri.common.errors import ColipriError
from colipri.text.llm.client import EndpointError, EndpointUnusableError
from colipri.text.llm.structurer import EndpointStructurer
from colipri.text.reports.report import ReportSource
from colipri.text.structured_file import StructuredFile, StructuringResult, structure_source

_FAILURES_IN_A_ROW = 8  # so many are not the fault of single reports


def structure_by_endpoint(
    sources: Sequence[ReportSource],
    file: StructuredFile,
    structurer: EndpointStructurer,
    concurrency: int,
    fall_back_on_rules: bool,
    status: Callable[[], str] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Structure the reports that ``file`` does not have yet, with a language model.

    Args:
        sources: where the reports are stored.
        file: gets the results.
        structurer: asks the endpoint.
        concurrency: number of reports in progress at a time.
        fall_back_on_rules: use the rules for a report that gets no valid answer.
        status: text that the progress bar shows after the rate.

    Returns:
        Case -> problem for each report missing in ``file``, and the cases structured by the rules
        instead.

    Raises:
        ColipriError: the endpoint cannot be used at all; finished reports are in ``file``.
    """
    problems: dict[str, str] = {}
    replaced: list[str] = []
    failures = 0
    work = partial(_by_endpoint, structurer=structurer, file=file)
    outcomes = _in_threads(work, sources, concurrency, structurer.client.stop)
    for source, result in progress(
        outcomes, "Structuring reports", total=len(sources), unit="report", status=status
    ):
        if isinstance(result, StructuringResult):
            failures = 0
            file.add(source.case, result)
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
                file.add(source.case, structure_source((source, ""), "rules (fallback)"))
                replaced.append(source.case)
                continue
        problems[source.case] = str(result)
    return problems, replaced


def _by_endpoint(
    source: ReportSource, structurer: EndpointStructurer, file: StructuredFile
) -> StructuringResult:
    report, method = source.load(), structurer.method
    known = report.digest == file.digest_of(source.case, method)
    structured = None if known else structurer.structure(report)
    return StructuringResult(structured, report.digest, method)


def _is_fatal(error: Exception) -> bool:
    """True if the error is not about a single report."""
    return isinstance(error, EndpointUnusableError) or not isinstance(error, ColipriError)


def _in_threads(
    work: Callable[[ReportSource], StructuringResult],
    sources: Sequence[ReportSource],
    num_threads: int,
    stop: Callable[[], None],
) -> Iterator[tuple[ReportSource, StructuringResult | Exception]]:
    """Run ``work`` on all sources in threads.

    The threads are daemons: Ctrl-C ends the program at once instead of after the last timeout.

    Args:
        work: structures one report.
        sources: the reports.
        num_threads: number of threads.
        stop: makes waiting threads give up.

    Yields:
        Results in the order in which they finish; an exception is a result.
    """
    waiting: queue.SimpleQueue[ReportSource] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[ReportSource, StructuringResult | Exception]] = (
        queue.SimpleQueue()
    )
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
                    is_over.set()  # the main thread raises it: send no more requests
                finished.put((source, error))

    for _ in range(min(num_threads, len(sources))):
        threading.Thread(target=serve, daemon=True).start()
    try:
        for _ in sources:
            yield finished.get()
    finally:
        is_over.set()
        stop()
