"""Reading a raw data set or a collection of data sets (documentation/raw_format.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, find_dataset_name, raw_folder
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.table import parse_finding, parse_split, read_cases_table

__all__ = ["Case", "RawDataset", "load_raw_dataset"]

REPORT_ENDINGS = (".txt", ".json")
_HELD_OUT = {"imagesTr": "imagesTs", "reportsTr": "reportsTs", "labelsTr": "labelsTs"}


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


def load_raw_dataset(id_or_name_or_folder: int | str | Path) -> RawDataset:
    """Read a data set by number, name or folder; collections are resolved to their members.

    Raises:
        ColipriError: something in dataset.json, cases.csv or the folders is wrong; one line says
            what and where.
    """
    candidate = Path(str(id_or_name_or_folder))
    if candidate.is_absolute() or (candidate / "dataset.json").is_file():
        folder = candidate
    else:
        folder = raw_folder() / find_dataset_name(str(id_or_name_or_folder))
    if not folder.is_dir():
        raise ColipriError(f"there is no raw data set {folder}")
    description = _read_description(folder)
    if "members" in description:
        return _load_collection(folder, description)
    return RawDataset(folder.name, folder, description, tuple(_read_cases(folder, description)))


def _read_description(folder: Path) -> dict[str, Any]:
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
    if sorted(description["channel_names"]) != [
        str(n) for n in range(len(description["channel_names"]))
    ]:
        raise ColipriError(f'{path}: channel_names must be numbered "0", "1", ...')
    findings = description.get("findings", [])
    if not isinstance(findings, list) or len(set(findings)) != len(findings):
        raise ColipriError(f"{path}: findings must be a list of different names")
    return description


def _read_cases(folder: Path, description: dict[str, Any]) -> list[Case]:
    """Cases of the table, or of the folder where there is no table."""
    table = folder / "cases.csv"
    findings = list(description.get("findings", []))
    if table.is_file():
        rows = read_cases_table(table, findings)
    else:
        rows = _rows_from_folders(folder, description)
    if not rows:
        raise ColipriError(f"{folder} has no cases (no rows in cases.csv, no files in imagesTr)")
    return sorted((_case(folder, description, row) for row in rows), key=lambda c: c.identifier)


def _rows_from_folders(folder: Path, description: dict[str, Any]) -> list[dict[str, str]]:
    """Without cases.csv every image is a case of its own subject; imagesTs is the test split."""
    ending = "_0000" + description["file_ending"]
    rows = []
    for images, split in (("imagesTr", ""), ("imagesTs", "test")):
        for file in sorted((folder / images).glob("*" + ending)):
            rows.append({"case": file.name[: -len(ending)], "split": split})
    return rows


def _case(folder: Path, description: dict[str, Any], row: dict[str, str]) -> Case:
    identifier = row["case"]
    where = f"{folder / 'cases.csv'}, case {identifier}"
    split = parse_split(row.get("split", ""), where)
    findings: dict[str, int | None] = {}
    for name in description.get("findings", []):
        try:
            findings[name] = parse_finding(row.get(name, ""))
        except ValueError as error:
            raise ColipriError(
                f"{where}: '{name}' is '{error}'; it must be 0, 1 or empty"
            ) from None
    return Case(
        identifier=identifier,
        subject=row.get("subject") or identifier,
        study=row.get("study") or identifier,
        split=split,
        images=_images(folder, description, row, split, where),
        report=_report(folder, row, split, where),
        label=_label(folder, description, identifier, split),
        findings=findings,
        dataset=folder.name,
    )


def _subfolder(folder: Path, name: str, split: str) -> Path:
    """imagesTs instead of imagesTr for a test case, if it lies there."""
    return folder / (_HELD_OUT[name] if split == "test" else name)


def _images(
    folder: Path, description: dict[str, Any], row: dict[str, str], split: str, where: str
) -> tuple[Path, ...]:
    channels = len(description["channel_names"])
    if row.get("image"):
        names = row["image"].split("|")
        if len(names) != channels:
            raise ColipriError(
                f"{where}: {len(names)} images for {channels} channels (separate them with |)"
            )
        return tuple(_path_of(folder, name.strip(), where) for name in names)
    ending = description["file_ending"]
    files = [f"{row['case']}_{number:04d}{ending}" for number in range(channels)]
    held_out = _subfolder(folder, "imagesTr", split)
    base = held_out if (held_out / files[0]).exists() else folder / "imagesTr"
    return tuple(base / file for file in files)


def _report(folder: Path, row: dict[str, str], split: str, where: str) -> Path | None:
    if row.get("report"):
        return _path_of(folder, row["report"], where)
    found = [
        base / (row["case"] + ending)
        for base in (folder / "reportsTr", _subfolder(folder, "reportsTr", split))
        for ending in REPORT_ENDINGS
        if (base / (row["case"] + ending)).is_file()
    ]
    distinct = list(dict.fromkeys(found))
    if len(distinct) > 1:
        raise ColipriError(f"{where}: two reports, {distinct[0]} and {distinct[1]}; keep one")
    return distinct[0] if distinct else None


def _label(folder: Path, description: dict[str, Any], case: str, split: str) -> Path | None:
    for base in (folder / "labelsTr", _subfolder(folder, "labelsTr", split)):
        candidate = base / (case + description["file_ending"])
        if candidate.is_file():
            return candidate
    return None


def _path_of(folder: Path, name: str, where: str) -> Path:
    """Absolute paths are meant; relative ones must stay inside the data set."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise ColipriError(
            f"{where}: the path '{name}' leaves the data set; write it as an absolute path if "
            "that is meant"
        )
    return folder / path


def _load_collection(folder: Path, description: dict[str, Any]) -> RawDataset:
    """Members side by side; ids and subjects get the member's number, findings are united."""
    cases: list[Case] = []
    findings: list[str] = []
    merged: dict[str, Any] | None = None
    for name in description["members"]:
        member = load_raw_dataset(name)
        if member.folder.resolve() == folder.resolve():
            raise ColipriError(f"{folder / 'dataset.json'}: a collection cannot be its own member")
        if "members" in member.dataset_json:
            raise ColipriError(f"{folder / 'dataset.json'}: member {name} is itself a collection")
        if merged is not None and member.channel_names != merged["channel_names"]:
            raise ColipriError(
                f"{folder / 'dataset.json'}: {name} has the channels {member.channel_names}, the "
                f"members before it {merged['channel_names']}; they cannot be trained together"
            )
        if merged is None:
            merged = {
                "channel_names": member.channel_names,
                "file_ending": member.dataset_json["file_ending"],
            }
        findings += [finding for finding in member.finding_names if finding not in findings]
        prefix = f"{dataset_id(member.name)}_"
        cases += [
            replace(
                case,
                identifier=prefix + case.identifier,
                subject=prefix + case.subject,
                study=prefix + case.study,
            )
            for case in member.cases
        ]
    assert merged is not None  # members is not empty
    united = [replace(c, findings={name: c.findings.get(name) for name in findings}) for c in cases]
    content = {**description, **merged, "findings": findings}
    return RawDataset(folder.name, folder, content, tuple(united))
