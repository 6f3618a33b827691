"""Reading a raw data set or a collection of data sets (documentation/raw_format.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.names import name_problem, printable
from colipri.paths import dataset_id, find_dataset_name, raw_folder
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.description import merge_descriptions, read_description
from colipri.raw_dataset.rows import RowReader, Subfolders
from colipri.raw_dataset.table import (
    ProblemHandler,
    TableProblem,
    read_cases_table,
    refuse,
)
from colipri.text.reports_without_findings import SHARE_KEY


@dataclass(frozen=True)
class RawDataset:
    """A raw data set in memory: names and paths, no voxels.

    Attributes:
        name: Dataset101_ChestCT.
        folder: of the data set.
        dataset_json: the content of dataset.json.
        cases: sorted by identifier.
    """

    name: str
    folder: Path
    dataset_json: dict[str, Any]
    cases: tuple[Case, ...]

    @property
    def channel_names(self) -> dict[str, str]:
        """{"0": "CT"}."""
        return dict(self.dataset_json["channel_names"])

    @property
    def finding_names(self) -> list[str]:
        """The findings with a column in cases.csv; empty if there are none."""
        return list(self.dataset_json.get("findings", []))


def load_raw_dataset(
    id_or_name_or_folder: int | str | Path, on_problem: ProblemHandler = refuse
) -> RawDataset:
    """Read a data set by number, name or folder; collections are resolved to their members.

    Args:
        id_or_name_or_folder: 101, "Dataset101_ChestCT" or a path.
        on_problem: called for each mistake in cases.csv; the verification collects them.

    Raises:
        ColipriError: there is no such data set or its dataset.json is wrong; with the default
            handler also for any mistake in cases.csv. One line says what and where.
    """
    candidate = Path(str(id_or_name_or_folder))
    if candidate.is_absolute() or (candidate / "dataset.json").is_file():
        folder = candidate
    else:
        folder = raw_folder() / find_dataset_name(str(id_or_name_or_folder))
    if not folder.is_dir():
        raise ColipriError(f"there is no raw data set {folder}")
    description = read_description(folder)
    if "members" in description:
        return _load_collection(folder, description, on_problem)
    cases = _read_cases(folder, description, on_problem)
    return RawDataset(folder.name, folder, description, tuple(cases))


def _read_cases(
    folder: Path, description: dict[str, Any], on_problem: ProblemHandler
) -> list[Case]:
    """Cases from the table, or from the folder if there is no table."""
    table = folder / "cases.csv"
    subfolders = Subfolders(folder)
    if table.is_file():
        rows = read_cases_table(table, list(description.get("findings", [])), on_problem)
    else:
        rows = _rows_from_folders(subfolders, description, on_problem)
    if not rows:
        what = "no cases (no rows in cases.csv, no files in imagesTr)"
        on_problem(TableProblem("no_cases", "", folder, what))
    reader = RowReader(folder, description, subfolders, on_problem)
    return sorted((reader.case(row) for row in rows), key=lambda case: case.identifier)


def _rows_from_folders(
    subfolders: Subfolders, description: dict[str, Any], on_problem: ProblemHandler
) -> list[dict[str, str]]:
    """Without cases.csv every image is a case with its own subject; imagesTs is the test split."""
    ending = "_0000" + description["file_ending"]
    rows: dict[str, dict[str, str]] = {}
    for images, split in (("imagesTr", ""), ("imagesTs", "test")):
        for name in sorted(subfolders.names(images)):
            if not name.endswith(ending):
                continue
            case = name[: -len(ending)]
            problem = name_problem(case)
            if problem:
                where = subfolders.folder / images
                on_problem(TableProblem("case_name_unusable", printable(case), where, problem))
                continue
            if case in rows:
                what = f"case '{case}' is in imagesTr and in imagesTs"
                on_problem(TableProblem("case_twice", case, subfolders.folder / images, what))
                continue
            rows[case] = {"case": case, "split": split}
    return list(rows.values())


def _load_collection(
    folder: Path, description: dict[str, Any], on_problem: ProblemHandler
) -> RawDataset:
    """Cases of all members; names get the member's number as prefix, findings are united."""
    where = str(folder / "dataset.json")
    names: list[str] = description["members"]
    if len(set(names)) != len(names) or folder.name in names:
        raise ColipriError(f"{where}: members must differ from each other and from the collection")
    descriptions = {
        name: read_description(raw_folder() / find_dataset_name(name)) for name in names
    }
    own = {key: value for key, value in description.items() if key != "labels"}
    content = {**own, **merge_descriptions(where, descriptions)}
    if SHARE_KEY in description:  # the collection's own statement counts
        content[SHARE_KEY] = description[SHARE_KEY]
    cases: list[Case] = []
    for name in names:
        prefix = f"{dataset_id(name)}_"
        member = load_raw_dataset(name, _with_prefix(prefix, on_problem))
        cases += [
            replace(
                case,
                identifier=prefix + case.identifier,
                subject=prefix + case.subject,
                study=prefix + case.study,
                findings={name: case.findings.get(name) for name in content["findings"]},
            )
            for case in member.cases
        ]
    cases.sort(key=lambda case: case.identifier)
    return RawDataset(folder.name, folder, content, tuple(cases))


def _with_prefix(prefix: str, on_problem: ProblemHandler) -> ProblemHandler:
    """A handler that reports a member's problems under the collection's case names."""

    def handle(problem: TableProblem) -> None:
        on_problem(replace(problem, case=prefix + problem.case if problem.case else ""))

    return handle
