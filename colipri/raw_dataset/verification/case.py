"""One case: what a worker process does.

Results are cached, so that a run that was killed continues where it stopped. Only cases without an
error are cached, and only while their files keep the same size and modification time: an error may
come from a drive that was not mounted, and what was fixed must be checked again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.imageio.parts import files_of, uncompressed_namesake
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.structured_reports import load_structured_report, structured_reports_file
from colipri.raw_dataset.verification.codes import ERROR
from colipri.raw_dataset.verification.issues import Issue, make_issue
from colipri.text.prompts.captions import full_caption
from colipri.text.reports.cleaning import fold_spaces
from colipri.text.reports.report import read_report
from colipri.text.structured_file import rules_method
from colipri.text.structured_report import structure_report
from colipri.text.text_length import count_words

logger = logging.getLogger(__name__)

FORMAT = 3  # increase it when the checks change
# First bytes of documents that hospitals export instead of text.
_DOCUMENTS = (
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "Word or zip"),
    (b"\xd0\xcf\x11\xe0", "old Word"),
    (b"{\\rtf", "RTF"),
    (b"\x1f\x8b", "gzip"),
)
_UTF8 = ("", "utf-8", "utf-8-sig", "ascii")
FEWEST_WORDS = 3


@dataclass(frozen=True)
class ReportFacts:
    """What the checks across cases need to know of a report.

    Attributes:
        digest: of its text; equal for equal wording.
        has_findings: a sentence affirms, doubts or denies something.
        caption_words: words and punctuation marks of the text that the encoder reads.
    """

    digest: str
    has_findings: bool
    caption_words: int


@dataclass(frozen=True)
class CaseResult:
    """What was found in one case.

    Attributes:
        issues: of its files.
        image_digest: of its voxels; "" if they could not be read.
        report: what is known of its report; None without a readable one.
    """

    issues: list[Issue]
    image_digest: str
    report: ReportFacts | None = None


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to check one case.

    Attributes:
        case: its files.
        channel_names: of dataset.json; channels named CT must hold HU.
        label_values: values that the label map may contain; None if dataset.json has no labels.
        cache: results of earlier runs.
    """

    case: Case
    channel_names: Mapping[str, str]
    label_values: frozenset[int] | None
    cache: CaseCache


def check_case(task: CaseTask) -> CaseResult:
    """Check the images, label map and report of one case; runs in a worker process."""
    cached = task.cache.load(task.case)
    if cached is not None:
        return cached
    # SimpleITK, scipy and nibabel take a second or more to import: neither the parent process nor
    # a run that finds all cases in the cache needs them.
    from colipri.raw_dataset.verification.images import check_images

    images, image_digest = check_images(task.case, task.channel_names, task.label_values)
    issues, report = check_report(task.case)
    result = CaseResult([*images, *issues], image_digest, report)
    task.cache.store(task.case, result)
    return result


def check_report(case: Case) -> tuple[list[Issue], ReportFacts | None]:
    """Check the report of one case.

    Returns:
        Issues, and what the checks across cases need; None without a readable report.
    """
    if case.report is None:
        return [], None

    def found(code: str, what: str) -> Issue:
        return make_issue(code, case.identifier, case.report, what)

    path = case.report
    try:
        if not path.exists():
            link = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
            return [found("report_missing", link or "it does not exist")], None
        with path.open("rb") as file:
            start = file.read(8).lstrip()
        for signature, name in _DOCUMENTS:
            if start.startswith(signature):
                return [found("report_not_text", f"it is a {name} file")], None
        report = read_report(path)
    except (ColipriError, OSError) as error:
        return [found("report_unreadable", str(error))], None
    if report.is_empty:
        return [found("report_empty", "it holds no text")], None
    issues = []
    text = report.text
    if "\ufffd" in text:
        issues.append(found("report_damaged", f"{text.count(chr(0xFFFD))} characters were lost"))
    elif report.notes or report.encoding.lower() not in _UTF8:
        what = "; ".join(report.notes) or f"encoding {report.encoding}"
        issues.append(found("report_encoding", what))
    if len(text.split()) < FEWEST_WORDS:
        issues.append(found("report_short", f"it has {len(text.split())} words"))
    structured = structure_report(report)
    if structured_reports_file(case) is not None:
        try:
            structured = load_structured_report(case) or structured
        except ColipriError as error:
            issues.append(found("report_not_structured", str(error)))
    if not structured.has_findings and not any(i.code == "report_short" for i in issues):
        count = sum(1 for _ in structured.sentences())
        issues.append(found("report_without_findings", f"none of its {count} sentences does"))
    folded = fold_spaces(text).casefold()
    digest = hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()
    words = count_words(full_caption(structured))
    return issues, ReportFacts(digest, structured.has_findings, words)


class CaseCache:
    """Results of earlier runs, one small file per case.

    Args:
        folder: $colipri_preprocessed/DatasetXXX_Name/verification_cases; None caches nothing.
        settings: plain data that results also depend on (channel names, label values).
    """

    def __init__(self, folder: Path | None, settings: Any) -> None:
        self._folder = folder
        self._settings = settings

    def load(self, case: Case) -> CaseResult | None:
        """The result of an earlier run, if the case's files are the same."""
        if self._folder is None:
            return None
        try:
            content = json.loads(self._file(case).read_text(encoding="utf-8"))
            if content["key"] != self._key(case):
                return None
            issues = [Issue(**stored) for stored in content["findings"]]
            report = content["report"]
            facts = None if report is None else ReportFacts(**report)
            return CaseResult(issues, content["image_digest"], facts)
        except (ColipriError, OSError, ValueError, KeyError, TypeError):  # absent: check again
            return None

    def store(self, case: Case, result: CaseResult) -> None:
        """Cache a result without errors; the verification continues if the disk is not writable."""
        if self._folder is None or any(issue.severity == ERROR for issue in result.issues):
            return
        content = {
            "key": self._key(case),
            "findings": [asdict(issue) for issue in result.issues],
            "image_digest": result.image_digest,
            "report": None if result.report is None else asdict(result.report),
        }
        try:
            atomic_write_json(self._file(case), content)
        except (ColipriError, OSError) as error:
            logger.debug("case %s: the result is not cached: %s", case.identifier, error)

    def _file(self, case: Case) -> Path:
        assert self._folder is not None
        return self._folder / f"{case.identifier}.json"

    def _key(self, case: Case) -> str:
        """Changes when a file of the case changes, or the rules that read its report."""
        parts: list[Any] = [FORMAT, rules_method(), self._settings, case.identifier]
        for path in (*case.images, case.label, case.report, structured_reports_file(case)):
            parts.append(None if path is None else list(_states(path)))
        return json_digest(parts)


def _states(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and modification time of all files of an image, or of a report."""
    namesake = uncompressed_namesake(path)
    for file in (*files_of(path), *([namesake] if namesake else [])):
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns
