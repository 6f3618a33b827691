"""Collections: several data sets under one number, without copying a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, find_dataset_name, raw_folder
from colipri.raw_dataset.description import has_labels, merge_descriptions, read_description

logger = logging.getLogger(__name__)


def join_datasets(datasets: Sequence[str | int], number: int, name: str) -> Path:
    """Write a collection's dataset.json.

    Args:
        datasets: numbers or names of at least two members, in order.
        number: of the collection.
        name: of the collection, without its number.

    Returns:
        Its folder, $colipri_raw/DatasetXXX_Name. Repeating the call changes nothing.

    Raises:
        ColipriError: members do not match, or the number belongs to another data set.
    """
    members = [find_dataset_name(dataset) for dataset in datasets]
    target = f"Dataset{number:03d}_{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ColipriError(
            f"'{name}' is not a valid data set name (use letters, digits, dots, - and _)"
        )
    if len(members) < 2 or len(set(members)) != len(members):
        raise ColipriError("name at least two different data sets with -d")
    if number in {dataset_id(member) for member in members}:
        raise ColipriError(f"{number} is the number of a member; choose another one with -o")
    folder = raw_folder() / target
    descriptions = {member: read_description(raw_folder() / member) for member in members}
    merged = merge_descriptions(target, descriptions)
    if "labels" not in merged and any(map(has_labels, descriptions.values())):
        logger.warning(
            "%s has no labels: its members name different ones, so nothing is learned from their "
            "label maps",
            target,
        )
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
    """Member of a collection -> the other members' findings that it does not have."""
    members = read_description(folder)["members"]
    known = {m: read_description(raw_folder() / m).get("findings", []) for m in members}
    everywhere = dict.fromkeys(finding for findings in known.values() for finding in findings)
    missing = {m: [f for f in everywhere if f not in findings] for m, findings in known.items()}
    return {member: findings for member, findings in missing.items() if findings}


def _require_free(folder: Path, number: int, members: Sequence[str]) -> None:
    """Check that the number is free, or belongs to the same collection."""
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
