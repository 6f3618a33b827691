"""Collections: several data sets under one number, without copying a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, find_dataset_name, raw_folder


def merge_descriptions(where: str, members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """channel_names, file_ending and findings of data sets that are trained together.

    A finding that a member has no column for is unknown in its cases. Findings that differ in
    spelling only are refused: each would be unknown in the other's cases, and nobody would notice.

    Args:
        where: names the collection in errors.
        members: name -> content of dataset.json, in order.

    Raises:
        ColipriError: a member is a collection, or channels or findings do not agree.
    """
    merged: dict[str, Any] = {}
    first = next(iter(members))
    spelling: dict[str, tuple[str, str]] = {}  # folded -> finding, member
    for name, description in members.items():
        if "members" in description:
            raise ColipriError(f"{where}: {name} is itself a collection; name its members instead")
        channels = dict(description["channel_names"])
        if merged and channels != merged["channel_names"]:
            raise ColipriError(
                f"{where}: {name} has the channels {_listed(channels)}, {first} has "
                f"{_listed(merged['channel_names'])}; only images of the same modality can be "
                "trained together (correct channel_names in dataset.json if they are)"
            )
        if not merged:
            merged = {"channel_names": channels, "file_ending": description["file_ending"]}
        for finding in description.get("findings", []):
            folded = re.sub(r"[^a-z0-9]", "", finding.casefold()) or finding
            known, member = spelling.setdefault(folded, (finding, name))
            if known != finding:
                raise ColipriError(
                    f"{where}: the finding '{finding}' of {name} is called '{known}' in {member}; "
                    "give it one name in both (dataset.json and cases.csv)"
                )
    merged["findings"] = [finding for finding, _ in spelling.values()]
    return merged


def join_datasets(datasets: Sequence[str | int], number: int, name: str) -> Path:
    """Write a collection's dataset.json.

    Args:
        datasets: numbers or names, at least two; order is kept.
        number: of the collection.
        name: of the collection, without its number.

    Returns:
        Its folder, $colipri_raw/DatasetXXX_Name. The same call again changes nothing.

    Raises:
        ColipriError: members do not agree, or the number belongs to another data set.
    """
    from colipri.raw_dataset.dataset import read_description

    members = [find_dataset_name(dataset) for dataset in datasets]
    target = f"Dataset{number:03d}_{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ColipriError(f"'{name}' is no data set name (letters, digits, dots, - and _)")
    if len(members) < 2 or len(set(members)) != len(members):
        raise ColipriError("name at least two different data sets with -d")
    if number in {dataset_id(member) for member in members}:
        raise ColipriError(f"{number} is the number of a member; choose another one with -o")
    folder = raw_folder() / target
    descriptions = {member: read_description(raw_folder() / member) for member in members}
    merged = merge_descriptions(target, descriptions)
    content = {
        "name": name,
        "description": "Collection of " + ", ".join(members),
        "licence": "; ".join(_licences(descriptions)),
        "members": members,
        "numTraining": sum(_num_training(d) for d in descriptions.values()),
        **merged,
    }
    _require_free(folder, number, members)
    atomic_write_json(folder / "dataset.json", content)
    return folder


def findings_unknown_in(folder: Path) -> dict[str, list[str]]:
    """Member of a collection -> the other members' findings that it says nothing about."""
    from colipri.raw_dataset.dataset import read_description

    members = read_description(folder)["members"]
    known = {m: read_description(raw_folder() / m).get("findings", []) for m in members}
    everywhere = dict.fromkeys(finding for findings in known.values() for finding in findings)
    missing = {m: [f for f in everywhere if f not in findings] for m, findings in known.items()}
    return {member: findings for member, findings in missing.items() if findings}


def _require_free(folder: Path, number: int, members: Sequence[str]) -> None:
    """The number is not taken, except by the same collection."""
    from colipri.raw_dataset.dataset import read_description

    others = [
        found.name
        for found in raw_folder().iterdir()
        if re.match(rf"Dataset0*{number}_", found.name) and found != folder
    ]
    if others:
        raise ColipriError(f"{number} is the number of {others[0]}; choose another one with -o")
    if folder.is_dir() and any(folder.iterdir()):
        present = read_description(folder) if (folder / "dataset.json").is_file() else {}
        if present.get("members") != list(members):
            raise ColipriError(
                f"{folder} exists and is not this collection; remove it or choose another -o"
            )


def _num_training(description: Mapping[str, Any]) -> int:
    stated = description.get("numTraining", 0)
    return stated if isinstance(stated, int) else 0


def _licences(descriptions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}: {description.get('licence') or description.get('license') or 'not stated'}"
        for name, description in descriptions.items()
    ]


def _listed(channels: Mapping[str, str]) -> str:
    return ", ".join(f"{number}: {channels[number]}" for number in sorted(channels, key=int))
