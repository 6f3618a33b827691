"""Which report belongs to which study: structured reports by UID, text files by place and name."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import SkippedFile, TextFile
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.reports import StructuredReport, merge_reports, read_structured_report
from colipri.text.reports.report import read_report, report_from_sections


@dataclass
class StudyReports:
    """Reports by study UID, and what could not be used.

    Attributes:
        sections: study -> heading -> text.
        notes: study -> what had to be decided.
        left_out: texts that belong to no study, or could not be read.
    """

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    left_out: list[SkippedFile] = field(default_factory=list)


def find_reports(
    images: Sequence[Instance], reports: Sequence[Instance], texts: Sequence[TextFile], root: Path
) -> StudyReports:
    """Assign reports to the studies of ``images``.

    A text file belongs to a study if its name (without ending) is the study's or a series' UID, the
    accession number, or the patient's identifier (of a patient with one study); or if it is called
    "report...", or like the folder, and lies in or beside a folder that holds one study only.
    Structured reports go before text files.
    """
    result = StudyReports()
    studies = {instance.study for instance in images}
    by_study: dict[str, list[StructuredReport]] = defaultdict(list)
    for instance in reports:
        if instance.study not in studies:
            reason = "a structured report of a study without images"
            result.left_out.append(SkippedFile(instance.where, reason, 1, instance.series))
            continue
        try:
            by_study[instance.study].append(read_structured_report(instance))
        except ColipriError as error:
            reason = str(error).removeprefix(f"{instance.where}: ")
            result.left_out.append(SkippedFile(instance.where, reason, 1, instance.series, True))
    for study, documents in by_study.items():
        result.sections[study] = named(report_from_sections(merge_reports(documents)).sections)
        if len(documents) > 1:
            result.notes[study] = f"{len(documents)} structured reports"
    _add_texts(result, images, texts, root)
    return result


def named(sections: Mapping[str, str]) -> dict[str, str]:
    """Sections that all have a name: text under no heading is most of all findings."""
    result: dict[str, str] = {}
    for name, text in sections.items():
        name = name or "findings"
        result[name] = f"{result[name]}\n{text}" if name in result else text
    return result


def _add_texts(
    result: StudyReports, images: Sequence[Instance], texts: Sequence[TextFile], root: Path
) -> None:
    names = _names_of_studies(images)
    folders = _studies_of_folders(images, root)
    for text in texts:
        path = text.path
        study = names.get(path.stem) or _study_of_place(path, folders)
        if study is None:
            result.left_out.append(SkippedFile(str(path), "a text that belongs to no study"))
            continue
        if study in result.sections:
            result.left_out.append(SkippedFile(str(path), "a second report of the study"))
            continue
        try:
            sections = _sections(text)
        except ColipriError as error:
            reason = f"the report cannot be used: {error}".replace(str(path), "it")
            result.left_out.append(SkippedFile(str(path), reason, defect=True))
            continue
        if not sections:
            result.left_out.append(SkippedFile(str(path), "the text is empty"))
            continue
        result.sections[study] = named(sections)


def _sections(text: TextFile) -> Mapping[str, str]:
    if text.content is None:
        return read_report(text.path).sections
    with tempfile.TemporaryDirectory(prefix="colipri-report-") as folder:
        copy = Path(folder) / ("report" + text.path.suffix)
        copy.write_bytes(text.content)
        try:
            return read_report(copy).sections
        except ColipriError as error:
            raise ColipriError(str(error).replace(str(copy), str(text.path))) from None


def _names_of_studies(images: Iterable[Instance]) -> Mapping[str, str]:
    """File name stem -> study, for names that mean one study only."""
    meant: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for name in (image.study, image.series, image.accession, image.patient):
            if name:
                meant[name].add(image.study)
    return {name: next(iter(studies)) for name, studies in meant.items() if len(studies) == 1}


def _studies_of_folders(images: Iterable[Instance], root: Path) -> Mapping[Path, set[str]]:
    """Folder -> studies of all images below it, up to ``root``."""
    result: dict[Path, set[str]] = defaultdict(set)
    for image in images:
        place = (image.file / image.member if image.member else image.file).parent
        while image.study not in result[place]:
            result[place].add(image.study)
            if place in (root, place.parent):
                break
            place = place.parent
    return result


def _study_of_place(path: Path, folders: Mapping[Path, set[str]]) -> str | None:
    beside = [path.with_name(path.stem), *(path.with_name(path.stem + e) for e in (".zip", ".tar"))]
    for folder in beside:  # like the folder or archive that lies beside it
        if len(folders.get(folder, ())) == 1:
            return next(iter(folders[folder]))
    inside = path.stem.lower().startswith("report") or path.stem == path.parent.name
    if inside and len(folders.get(path.parent, ())) == 1:
        return next(iter(folders[path.parent]))
    return None
