"""The text of DICOM structured reports (SR): headings and the text under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import plain_files
from colipri.imageio.dicom.headers import STRUCTURED_REPORTS, Instance

# Names, dates and references identify people and do not describe the image.
_TEXT_TYPES = ("TEXT", "CODE", "NUM")


@dataclass(frozen=True)
class StructuredReport:
    """An SR document as sections, in the document's order.

    Attributes:
        sections: heading -> text; "" for text under no heading.
        replaces: instance UIDs of the documents that this one amends.
        when: content date and time as written, for ordering.
        complete: False if the document is flagged as partial (a draft).
    """

    instance: Instance
    sections: dict[str, str]
    replaces: tuple[str, ...]
    when: str
    complete: bool


def is_report(instance: Instance) -> bool:
    """True if the object is a text, enhanced or comprehensive SR."""
    return instance.sop_class in STRUCTURED_REPORTS


def read_structured_report(instance: Instance) -> StructuredReport:
    """Read an SR document's tree of containers and text values.

    Raises:
        ColipriError: the document is damaged, or holds no text.
    """
    sections: dict[str, list[str]] = {}
    with plain_files([instance]) as files:
        data = _read(files[0], instance)
    try:
        _collect(data.get("ContentSequence") or [], "", sections, depth=0)
    except (AttributeError, ValueError, RecursionError) as error:
        raise ColipriError(f"{instance.where}: damaged structured report: {error}") from error
    if not sections:
        raise ColipriError(f"{instance.where}: the structured report holds no text")
    predecessors = tuple(
        str(reference.ReferencedSOPInstanceUID)
        for study in data.get("PredecessorDocumentsSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for reference in series.get("ReferencedSOPSequence") or []
    )
    return StructuredReport(
        instance,
        {heading: "\n".join(texts) for heading, texts in sections.items()},
        predecessors,
        f"{data.get('ContentDate') or ''}{data.get('ContentTime') or ''}",
        str(data.get("CompletionFlag") or "COMPLETE") == "COMPLETE",
    )


def merge_reports(reports: Sequence[StructuredReport]) -> dict[str, str]:
    """Sections of a study's reports: amended documents and drafts are dropped, the rest joined."""
    replaced = {uid for report in reports for uid in report.replaces}
    valid = [report for report in reports if report.instance.sop_instance not in replaced]
    finished = [report for report in valid if report.complete] or valid
    merged: dict[str, str] = {}
    for report in sorted(finished, key=lambda r: (r.when, r.instance.sop_instance)):
        for heading, text in report.sections.items():
            if text not in merged.get(heading, ""):
                merged[heading] = f"{merged[heading]}\n{text}" if heading in merged else text
    return merged


def _read(file: Path, instance: Instance) -> Any:
    try:
        return pydicom.dcmread(file, force=True)
    except Exception as error:
        raise ColipriError(
            f"{instance.where}: damaged structured report: {type(error).__name__}: {error}"
        ) from error


def _collect(items: Any, heading: str, sections: dict[str, list[str]], depth: int) -> None:
    """Walk the tree; a container's concept name is the heading of the texts below it."""
    for item in items:
        kind = str(item.get("ValueType") or "")
        name = _meaning(item, "ConceptNameCodeSequence")
        children = item.get("ContentSequence") or []
        if kind == "CONTAINER":
            _collect(children, name or heading, sections, depth + 1)
            continue
        text = _text_of(item, kind) if kind in _TEXT_TYPES else ""
        # A text directly below the root carries its own heading ("Findings": "...").
        place = heading or name
        if text:
            label = f"{name}: " if kind != "TEXT" and name and name != place else ""
            sections.setdefault(place, []).append(label + text)
        if kind in _TEXT_TYPES:
            _collect(children, place, sections, depth + 1)


def _text_of(item: Any, kind: str) -> str:
    if kind == "TEXT":
        return str(item.get("TextValue") or "").strip()
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    for value in item.get("MeasuredValueSequence") or []:
        unit = (
            ""
            if value.get("MeasurementUnitsCodeSequence") is None
            else " " + str(value.MeasurementUnitsCodeSequence[0].get("CodeValue") or "")
        )
        return f"{value.get('NumericValue')}{unit}".strip()
    return ""


def _meaning(item: Any, sequence: str) -> str:
    codes = item.get(sequence) or []
    return str(codes[0].get("CodeMeaning") or "").strip() if len(codes) else ""
