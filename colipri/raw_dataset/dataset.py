"""Reading a raw data set or a collection of data sets (documentation/raw_format.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, find_dataset_name, raw_folder
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.collection import merge_descriptions
from colipri.raw_dataset.folders import Subfolders
from colipri.raw_dataset.problems import ProblemHandler, TableProblem, refuse
from colipri.raw_dataset.rows import RowReader
from colipri.raw_dataset.table import FIXED_COLUMNS, read_cases_table

__all__ = ["Case", "RawDataset", "load_raw_dataset", "read_description"]


@dataclass(frozen=True)
class RawDataset:
    """A raw data set in memory: names and paths, no voxels.

    Attributes:
        name: Dataset101_ChestCT.
        folder: where it lies.
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
        """The findings that cases.csv has columns for; empty without labels."""
        return list(self.dataset_json.get("findings", []))


def load_raw_dataset(
    id_or_name_or_folder: int | str | Path, on_problem: ProblemHandler = refuse
) -> RawDataset:
    """Read a data set by number, name or folder; collections are resolved to their members.

    Args:
        id_or_name_or_folder: 101, "Dataset101_ChestCT" or a path.
        on_problem: what to do with a mistake in cases.csv; the verification collects them.

    Raises:
        ColipriError: there is no such data set or its dataset.json is wrong; by the default
            handler also anything wrong in cases.csv. One line says what and where.
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


def read_description(folder: Path) -> dict[str, Any]:
    """The content of dataset.json, checked (a member list, or channels and file ending)."""
    path = folder / "dataset.json"
    description = read_json(path)
    if not isinstance(description, dict):
        raise ColipriError(f"{path} must be an object with channel_names and file_ending")
    if "members" in description:
        members = description["members"]
        if not (isinstance(members, list) and members and all(isinstance(m, str) for m in members)):
            raise ColipriError(f"{path}: members must be a list of data set names")
        return description
    for key, kind in (("channel_names", dict), ("file_ending", str)):
        if not isinstance(description.get(key), kind) or not description[key]:
            raise ColipriError(
                f"{path} needs '{key}', for example "
                + ('{"0": "CT"}' if key == "channel_names" else '".nii.gz"')
            )
    channels = description["channel_names"]
    if set(channels) != {str(number) for number in range(len(channels))}:
        raise ColipriError(f'{path}: channel_names must be numbered "0", "1", ...')
    findings = description.get("findings", [])
    if not isinstance(findings, list) or not all(isinstance(name, str) for name in findings):
        raise ColipriError(f"{path}: findings must be a list of names")
    if len(set(findings)) != len(findings) or set(findings) & set(FIXED_COLUMNS):
        raise ColipriError(
            f"{path}: findings must differ from each other and from {', '.join(FIXED_COLUMNS)}"
        )
    return description


def _read_cases(
    folder: Path, description: dict[str, Any], on_problem: ProblemHandler
) -> list[Case]:
    """Cases of the table, or of the folder where there is no table."""
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
    """Without cases.csv every image is a case of its own subject; imagesTs is the test split."""
    ending = "_0000" + description["file_ending"]
    rows: dict[str, dict[str, str]] = {}
    for images, split in (("imagesTr", ""), ("imagesTs", "test")):
        for name in sorted(subfolders.names(images)):
            if not name.endswith(ending):
                continue
            case = name[: -len(ending)]
            if case in rows:
                what = f"case '{case}' is in imagesTr and in imagesTs"
                on_problem(TableProblem("case_twice", case, subfolders.folder / images, what))
                continue
            rows[case] = {"case": case, "split": split}
    return list(rows.values())


def _load_collection(
    folder: Path, description: dict[str, Any], on_problem: ProblemHandler
) -> RawDataset:
    """Members side by side; ids and subjects get the member's number, findings are united."""
    where = str(folder / "dataset.json")
    names: list[str] = description["members"]
    if len(set(names)) != len(names) or folder.name in names:
        raise ColipriError(f"{where}: members must differ from each other and from the collection")
    descriptions = {
        name: read_description(raw_folder() / find_dataset_name(name)) for name in names
    }
    content = {**description, **merge_descriptions(where, descriptions)}
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
    """A handler for a member's problems, which are reported under the collection's case names."""

    def handle(problem: TableProblem) -> None:
        on_problem(replace(problem, case=prefix + problem.case if problem.case else ""))

    return handle
