"""What a folder or archive of DICOM files holds: headers, texts, and the report of each study."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.imageio.dicom.files import SkippedFile, TextFile, is_archive, read_file, walk_files
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.reports import StructuredReport, merge_reports, read_structured_report
from colipri.text.reports.report import read_report, report_from_sections

TEXT_ENDINGS = (".txt", ".json")
# Starting processes takes about a second, as long as reading this many headers.
_WORTH_PROCESSES = 2000
_CHUNK = 200


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
    "report...", or like the folder, and is in or next to a folder that holds only one study.
    Structured reports go before text files.

    Args:
        images: of all studies.
        reports: structured reports (DICOM SR).
        texts: text files in the folder.
        root: the folder.
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
    for folder in beside:  # named like the folder or archive next to it
        if len(folders.get(folder, ())) == 1:
            return next(iter(folders[folder]))
    inside = path.stem.lower().startswith("report") or path.stem == path.parent.name
    if inside and len(folders.get(path.parent, ())) == 1:
        return next(iter(folders[path.parent]))
    return None


@dataclass
class Scan:
    """What was found: headers, files that are not DICOM, and texts that may be reports."""

    instances: list[Instance] = field(default_factory=list)
    left_out: list[SkippedFile] = field(default_factory=list)
    texts: list[TextFile] = field(default_factory=list)


def scan_source(source: Path, num_processes: int, others: Sequence[str] = ()) -> Scan:
    """Read the headers of every file under ``source``.

    Args:
        source: a folder, an archive or a file.
        num_processes: for many files.
        others: endings of files that the caller looks after itself.

    Raises:
        ColipriError: the source cannot be read at all.
    """
    scan = Scan()
    files: list[Path] = []
    for found in walk_files(source):
        if isinstance(found, SkippedFile):
            scan.left_out.append(found)
        elif not found.name.lower().endswith(tuple(others) or ("\0",)):
            files.append(found)
    archives = [[file] for file in files if is_archive(file)]
    plain = [file for file in files if not is_archive(file)]
    chunks = archives + [plain[n : n + _CHUNK] for n in range(0, len(plain), _CHUNK)]
    many = len(plain) >= _WORTH_PROCESSES or len(archives) > 1
    for outcome in run_parallel(
        _read_files, chunks, num_processes if many else 1, "Reading DICOM headers"
    ):
        if outcome.result is None:
            what = str(outcome.item[0])
            scan.left_out.append(SkippedFile(what, outcome.problem or "", len(outcome.item)))
            continue
        for item in outcome.result:
            if isinstance(item, Instance):
                scan.instances.append(item)
            elif isinstance(item, TextFile):
                scan.texts.append(item)
            else:
                scan.left_out.append(item)
    # Processes finish in any order; the result must not depend on it.
    scan.instances.sort(key=lambda instance: (instance.file, instance.member))
    scan.left_out.sort(key=lambda item: item.what)
    scan.texts.sort(key=lambda text: text.path)
    return scan


def _read_files(files: Sequence[Path]) -> list[Instance | SkippedFile | TextFile]:
    return [item for file in files for item in read_file(file, TEXT_ENDINGS)]
