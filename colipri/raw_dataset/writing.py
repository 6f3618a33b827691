"""Writing a raw data set: reports, cases.csv and dataset.json, each complete or absent.

A converter calls, in this order (dataset.json last: a folder without it is not a data set, so a
converter that was killed never leaves an incomplete one behind):

    counts = write_cases(folder, (CaseRow("scan_1", subject="p1", images=[scan]) for ...), findings)
    write_dataset_json(folder, {"0": "CT"}, ".nii.gz", findings, counts, licence="CC BY 4.0")

Rows are streamed: only the case names are held in memory, however long the archive is.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_path, atomic_write_json, atomic_write_text
from colipri.common.errors import ColipriError
from colipri.common.names import name_problem, printable
from colipri.raw_dataset.cases import SPLITS
from colipri.raw_dataset.table import FIXED_COLUMNS

CHANNEL_SEPARATOR = "|"


@dataclass(frozen=True)
class CaseRow:
    """A row of cases.csv to write.

    Attributes:
        case: unique; a file name's stem (no slash, no leading dot).
        subject: the patient; if empty, the case is its own patient.
        study: shared by reconstructions of one scan; if empty, the case is its own study.
        split: "train", "val", "test", or "" (decided by the framework).
        images: one path per channel; a DICOM series is its folder. If empty, the image is in
            imagesTr (imagesTs for a test case) under the case's name.
        report: .txt or .json; None if there is none, or if it is in reportsTr under the case's
            name.
        findings: name -> 1, 0 or None (unknown); missing names are unknown.
    """

    case: str
    subject: str = ""
    study: str = ""
    split: str = ""
    images: Sequence[Path | str] = ()
    report: Path | str | None = None
    findings: Mapping[str, int | bool | None] = field(default_factory=dict)


def write_cases(
    folder: Path | str, rows: Iterable[CaseRow], finding_names: Sequence[str] = ()
) -> dict[str, int]:
    """Write cases.csv; paths inside ``folder`` become relative, others absolute.

    Args:
        folder: $colipri_raw/DatasetXXX_Name; created if missing.
        rows: in any order, consumed once; cases.csv keeps the order.
        finding_names: the columns after the fixed ones, as in dataset.json.

    Returns:
        The number of cases per split, e.g. {"train": 80, "val": 10, "test": 10, "": 0}.

    Raises:
        ColipriError: a row could not be read back; it is named, and cases.csv stays unchanged.
    """
    folder = Path(folder)
    _check_finding_names(finding_names)
    counts = dict.fromkeys(SPLITS, 0)
    seen: set[str] = set()
    with (
        atomic_path(folder / "cases.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIXED_COLUMNS, *finding_names])
        for row in rows:
            _check_row(row, seen, finding_names)
            writer.writerow(_cells(folder, row, finding_names))
            counts[row.split] += 1
        if not seen:
            raise ColipriError(f"there is no case to write into {folder / 'cases.csv'}")
    return counts


def write_dataset_json(
    folder: Path | str,
    channel_names: Mapping[str, str],
    file_ending: str,
    finding_names: Sequence[str] = (),
    num_cases: Mapping[str, int] | int = 0,
    **more: Any,
) -> None:
    """Write dataset.json, with the keys that nnU-Net v2 reads as well.

    Args:
        folder: $colipri_raw/DatasetXXX_Name; created if missing.
        channel_names: {"0": "CT"}; a channel called CT holds HU.
        file_ending: ".nii.gz"; of the files that are named like their cases.
        finding_names: as given to :func:`write_cases`.
        num_cases: what :func:`write_cases` returned (numTraining is all but test), or a number.
        more: any other key: licence, reference, description, release, labels, ...
    """
    folder = Path(folder)
    if not file_ending.startswith("."):
        raise ColipriError(f"file_ending '{file_ending}' must begin with a dot, as in .nii.gz")
    if sorted(channel_names) != sorted(str(n) for n in range(len(channel_names))):
        raise ColipriError('channel_names must be numbered "0", "1", ..., as in {"0": "CT"}')
    if not channel_names:
        raise ColipriError('channel_names is empty; name at least one, as in {"0": "CT"}')
    _check_finding_names(finding_names)
    training = (
        num_cases
        if isinstance(num_cases, int)
        else sum(count for split, count in num_cases.items() if split != "test")
    )
    content: dict[str, Any] = {
        "name": more.pop("name", folder.name.partition("_")[2] or folder.name),
        **more,
        "channel_names": dict(channel_names),
        "labels": more.get("labels", {"background": 0}),  # nnU-Net asks for it
        "numTraining": training,
        "file_ending": file_ending,
    }
    if finding_names:
        content["findings"] = list(finding_names)
    atomic_write_json(folder / "dataset.json", content)


def write_report(
    folder: Path | str, case: str, report: str | Mapping[str, Any], split: str = ""
) -> Path:
    """Write a report under the case's name: text as .txt, sections as .json.

    Args:
        folder: $colipri_raw/DatasetXXX_Name; created if missing.
        case: the case's identifier.
        report: text, or section name -> text.
        split: of the case; reports of test cases go to reportsTs.

    Returns:
        reportsTr/<case>.txt or .json (reportsTs for a test case). A report of the other kind that
        an earlier run left is removed, because two reports for one case are an error.
    """
    base = Path(folder) / ("reportsTs" if split == "test" else "reportsTr")
    text, sections = base / f"{case}.txt", base / f"{case}.json"
    if isinstance(report, str):
        atomic_write_text(text, report)
        sections.unlink(missing_ok=True)
        return text
    atomic_write_json(sections, dict(report))
    text.unlink(missing_ok=True)
    return sections


def _check_finding_names(names: Sequence[str]) -> None:
    for name in names:
        if name in FIXED_COLUMNS:
            raise ColipriError(f"a finding cannot be called '{name}': cases.csv has that column")
        if not name or name != name.strip() or "\n" in name:
            raise ColipriError(
                f"'{name}' is not a valid finding name (it is empty or has spaces around it)"
            )
    if len(set(names)) != len(names):
        raise ColipriError("a finding is named twice: " + ", ".join(names))


def _check_row(row: CaseRow, seen: set[str], finding_names: Sequence[str]) -> None:
    """Raise for everything that could not be read back."""
    case = row.case
    if not case or case != case.strip() or case.startswith("."):
        raise ColipriError(f"'{case}' is not a valid case name (it must be a file's stem)")
    if any(character in case for character in "/\\\n\r"):
        raise ColipriError(f"'{case}' is not a valid case name (no slashes, no line breaks)")
    problem = name_problem(case)
    if problem:
        raise ColipriError(f"'{printable(case)}' is not a valid case name: {problem}")
    if case in seen:
        raise ColipriError(f"case '{case}' is written twice; case names must be unique")
    seen.add(case)
    if row.split not in SPLITS:
        raise ColipriError(f"case {case}: split '{row.split}' must be train, val, test or empty")
    for name, value in row.findings.items():
        if name not in finding_names:
            raise ColipriError(f"case {case}: finding '{name}' is not among the data set's")
        if value is not None and value not in (0, 1):
            raise ColipriError(f"case {case}: '{name}' is {value!r}; it must be 0, 1 or None")


def _cells(folder: Path, row: CaseRow, finding_names: Sequence[str]) -> list[str]:
    images = [path_in_table(folder, image) for image in row.images]
    for image in images:
        if CHANNEL_SEPARATOR in image:
            raise ColipriError(
                f"case {row.case}: the path '{image}' contains '|', which separates channels; "
                "rename it, or use a symbolic link without it"
            )
    findings = [row.findings.get(name) for name in finding_names]
    return [
        row.case,
        row.subject,
        row.study,
        row.split,
        CHANNEL_SEPARATOR.join(images),
        "" if row.report is None else path_in_table(folder, row.report),
        *("" if value is None else str(int(value)) for value in findings),
    ]


def path_in_table(folder: Path | str, path: Path | str) -> str:
    """A path as cases.csv stores it: relative to ``folder`` if it is inside, otherwise absolute.

    A relative ``path`` is relative to ``folder``. Symbolic links are not resolved: an archive that
    is mounted elsewhere tomorrow is still found through its link.
    """
    base = Path(os.path.normpath(Path(folder).absolute()))
    whole = Path(os.path.normpath(base / Path(path).expanduser()))
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else str(whole)
