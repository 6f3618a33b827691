"""One case of a source becomes files and a row of cases.csv; runs in a worker process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.images import (
    check_source,
    copy,
    ending_of,
    is_current,
    link,
    note_of,
    place_image,
    require_utf8,
    write_image,
)
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.raw_dataset.writing import CaseRow

CANNOT_WRITE = "cannot write "  # messages of colipri.common.atomic start with it


@dataclass(frozen=True)
class CaseTask:
    """A case, its new name, the data set's folder and how images are written.

    status, reason: of a skipped case. It only passes through, so that the report keeps the order of
    the source.
    """

    case: SourceCase
    name: str
    folder: Path
    mode: str
    channels: int = 1
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class WrittenCase:
    """The row, the images' file name endings and notes, or why nothing more can be written."""

    row: CaseRow | None
    endings: frozenset[str] = frozenset()
    note: str = ""
    stop: str = ""  # a full disk is not the case's fault


def write_case(task: CaseTask) -> WrittenCase:
    """Write a case's files; files that an earlier run finished are kept.

    Raises:
        ColipriError: the case has a problem.
    """
    if task.status:
        return WrittenCase(None)
    case, mode = task.case, task.mode
    suffix = "Ts" if case.split == "test" else "Tr"
    stem = task.folder / f"images{suffix}" / task.name
    try:
        sources = [check_source(path) for path in case.images]
        if case.make is not None:
            images = _made(case, sources, stem, task.channels)
        else:
            images = [
                place_image(source, stem.with_name(f"{stem.name}_{channel:04d}"), mode)
                for channel, source in enumerate(sources)
            ]
        report = _report(case, task.folder / f"reports{suffix}" / task.name, mode)
        if report is None:
            _remove_reports(task)
    except ColipriError as error:
        if str(error).startswith(CANNOT_WRITE):
            return WrittenCase(None, stop=str(error))
        raise
    row = CaseRow(
        task.name, case.subject, case.study, case.split, images, report, dict(case.findings)
    )
    notes = [case.note, note_of(images[0]) if case.make is not None else ""]
    endings = frozenset(ending_of(image) for image in images)
    return WrittenCase(row, endings, "; ".join(note for note in notes if note))


def _made(case: SourceCase, sources: list[Path], stem: Path, channels: int) -> list[Path]:
    """Make the image, or one image per channel, unless it exists."""
    assert case.make is not None
    targets = [stem.with_name(f"{stem.name}_{number:04d}.nii.gz") for number in range(channels)]
    if all(is_current(target, sources) for target in targets):
        return targets
    made = case.make(sources)
    images: list[Any] = list(made) if isinstance(made, (list, tuple)) else [made]
    if len(images) != channels:
        raise ColipriError(f"{len(images)} images were made, but there are {channels} channels")
    for image, target in zip(images, targets, strict=True):
        write_image(image, target)
    return targets


def _report(case: SourceCase, stem: Path, mode: str) -> Path | None:
    """Write, copy, link or refer to the report; None if there is no text."""
    report = case.report
    if isinstance(report, Path):
        source = check_source(report, "report")
        target = stem.with_name(stem.name + (".json" if _is_json(source) else ".txt"))
        if mode == "reference":
            return require_utf8(source, "report")
        return link(source, target) if mode == "link" else copy(source, target)
    if isinstance(report, Mapping):
        sections = {name: text for name, text in report.items() if text and text.strip()}
        if not sections:
            return None
        content = json.dumps(sections, indent=2, ensure_ascii=False) + "\n"
        return _write_text(stem, ".json", content)
    if report is None or not report.strip():
        return None
    return _write_text(stem, ".txt", report)


def _remove_reports(task: CaseTask) -> None:
    """Remove the report of an earlier run; it would be found under the case's name."""
    for suffix in ("Tr", "Ts"):
        for ending in (".txt", ".json"):
            (task.folder / f"reports{suffix}" / (task.name + ending)).unlink(missing_ok=True)


def _write_text(stem: Path, ending: str, text: str) -> Path:
    """Written atomically but not flushed, which would take most of the time. A text that a power
    cut has emptied is found by the verification and fixed by the next run."""
    target = stem.with_name(stem.name + ending)
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ColipriError(f"the report contains invalid characters: {error.reason}") from error
    if not (target.is_file() and target.read_bytes() == content):
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    return target


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"
