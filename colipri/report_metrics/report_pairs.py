"""Reference and generated reports, read from files and matched by case."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.raw_dataset.report_sources import find_reports
from colipri.text.reports.report import Report, context_sections, report_from_text
from colipri.text.structured_report import StructuredReport, structure_report

logger = logging.getLogger(__name__)

MISSING_RULES = ("error", "empty", "leave_out")
MOST_WORDS = (
    5000  # a CT report has 100-500 words; a generator that does not stop writes on for ever
)
_SHOWN = 5


@dataclass(frozen=True)
class JudgedText:
    """A report as it is judged: the part that describes the image.

    Attributes:
        report: By section.
        structured: By sentence; made by the rules where nothing else is given.
    """

    report: Report
    structured: StructuredReport

    @cached_property
    def text(self) -> str:
        """The sections about the image in one line; technique, comparison and others left out."""
        sections = {n: t for n, t in self.report.sections.items() if n not in context_sections()}
        return " ".join(" ".join((sections or self.report.sections).values()).split())


@dataclass(frozen=True)
class ReportPairs:
    """Reference and generated report of every case that is judged.

    Attributes:
        cases: Names, sorted.
        patients: The patient of every case.
        references: Of every case.
        generated: Of every case.
        notes: What was left out or counted as empty, one line each.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    references: tuple[JudgedText, ...]
    generated: tuple[JudgedText, ...]
    notes: tuple[str, ...] = field(default=())


def judged_text(text: str, sections: Sequence[str] = ()) -> JudgedText:
    """Split and structure a report.

    Args:
        text: The report, with or without headings; may be empty.
        sections: Judge these sections alone, such as "findings"; a text that has none of them
            (no headings at all) is judged as a whole.
    """
    return judged_report(report_from_text(text), sections)


def judged_report(
    report: Report, sections: Sequence[str] = (), structured: StructuredReport | None = None
) -> JudgedText:
    """As :func:`judged_text`, of a report that is already split into sections.

    Args:
        report: By section.
        sections: Judge these sections alone.
        structured: Of the whole report, where a file of structured reports holds it.
    """
    if sections and set(sections) & set(report.sections):
        chosen = {name: text for name, text in report.sections.items() if name in sections}
        report = Report(chosen, report.encoding, report.notes)
        if structured is not None:
            kept = {n: s for n, s in structured.sections.items() if n in sections}
            structured = StructuredReport(kept, structured.order)
    return JudgedText(report, structure_report(report) if structured is None else structured)


def read_report_texts(path: Path | str) -> dict[str, str]:
    """Read reports from a file or folder: case -> text.

    Args:
        path: .jsonl or .json of colipri_generate_reports, a table (.csv, .tsv) with a report per
            row, or a folder of .txt and .json files.

    Raises:
        ColipriError: another layout, no report, or a case twice.
    """
    path = Path(path)
    if not path.exists():
        raise ColipriError(f"there are no reports at {path}")
    if path.suffix.lower() == ".jsonl":
        return _of_rows(_json_lines(path), path)
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("reports"), list):
            raise ColipriError(
                f'{path} holds no list "reports" of {{"case": ..., "report": ...}}, as '
                "colipri_generate_reports writes it"
            )
        return _of_rows(enumerate(content["reports"], start=1), path)
    return {source.case: _with_headings(source.load()) for source in find_reports(path)}


def match_reports(
    references: Mapping[str, JudgedText],
    generated: Mapping[str, JudgedText],
    patients: Mapping[str, str] | None = None,
    missing: str = "error",
) -> ReportPairs:
    """Pair the reports of every case.

    Args:
        references: Case -> report written by a person.
        generated: Case -> report to be judged.
        patients: Case -> patient; a case without one is a patient of its own.
        missing: What happens to a case without a generated report: "error"; "empty", it counts as
            an empty report; "leave_out", it is not judged, and named in the result.

    Raises:
        ColipriError: no case in common, a missing case, or a report of too many words.
    """
    if missing not in MISSING_RULES:
        raise ColipriError(f"missing must be one of {', '.join(MISSING_RULES)}, not '{missing}'")
    if not references:
        raise ColipriError("there is no reference report")
    notes = []
    extra = sorted(set(generated) - set(references))
    absent = sorted(set(references) - set(generated))
    if len(absent) == len(references):
        raise ColipriError(
            f"no case has both reports: the references begin with {_few(sorted(references))}, the "
            f"generated reports with {_few(sorted(generated))}"
        )
    if extra:
        notes.append(f"{len(extra)} generated reports have no reference, not judged: {_few(extra)}")
    if absent and missing == "error":
        raise ColipriError(
            f"{len(absent)} of {len(references)} cases have no generated report ({_few(absent)}); "
            "generate them, or say how they count: --missing empty or --missing leave_out"
        )
    if absent:
        how = "counted as empty reports" if missing == "empty" else "left out of every figure"
        notes.append(f"{len(absent)} cases without a generated report, {how}: {_few(absent)}")
    cases = sorted(references if missing == "empty" else set(references) & set(generated))
    empty = JudgedText(Report({}), StructuredReport({}))
    pairs = [(references[case], generated.get(case, empty)) for case in cases]
    for case, (reference, _) in zip(cases, pairs, strict=True):
        if not reference.text:
            raise ColipriError(f"case {case}: the reference report is empty; remove it or fix it")
    wordless = [case for case, (_, written) in zip(cases, pairs, strict=True) if not written.text]
    if set(wordless) - set(absent):
        found = [case for case in wordless if case in generated]
        notes.append(f"{len(found)} generated reports are empty, they count as such: {_few(found)}")
    return ReportPairs(
        tuple(cases),
        tuple((patients or {}).get(case, case) for case in cases),
        tuple(reference for reference, _ in pairs),
        tuple(written for _, written in pairs),
        tuple(notes),
    )


def limit_words(texts: Mapping[str, str], cut_words: int | None = None) -> dict[str, str]:
    """Refuse or shorten reports that did not end.

    Args:
        texts: Case -> generated report.
        cut_words: Keep as many words of a longer report; None refuses it beyond 5,000.

    Raises:
        ColipriError: a report has more than 5,000 words and ``cut_words`` is not given.
    """
    result = {}
    for case, text in texts.items():
        words = len(text.split())
        if cut_words is None and words > MOST_WORDS:
            raise ColipriError(
                f"case {case}: the generated report has {words:,} words, more than {MOST_WORDS:,}; "
                "the generator did not stop. Generate with a limit (--max_tokens), or judge the "
                "beginning alone: --cut_words 1000"
            )
        if cut_words is not None and words > cut_words:
            logger.warning("case %s: %d words, judged on the first %d", case, words, cut_words)
            text = " ".join(text.split()[:cut_words])
        result[case] = text
    return result


def _json_lines(path: Path) -> list[tuple[int, Any]]:
    rows = []
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            raise ColipriError(f"{path}, line {number}, is not valid JSON: {error.msg}") from error
    return rows


def _of_rows(rows: Any, path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("report"), str) or "case" not in row:
            raise ColipriError(
                f'{path}, entry {number}, must be an object {{"case": ..., "report": "..."}}'
            )
        case = str(row["case"])
        if case in texts:
            raise ColipriError(f"{path}: two reports of case '{case}' (entry {number})")
        texts[case] = row["report"]
    if not texts:
        raise ColipriError(f"{path} holds no report")
    return texts


def _with_headings(report: Report) -> str:
    return "\n\n".join(
        f"{name}:\n{text}" if name else text for name, text in report.sections.items()
    )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
