"""What training needs beside the cases: plan, fingerprint, splits, description of the data set.

These small files lie beside a store, in $colipri_preprocessed/DatasetXXX. A move takes them along,
into the folder ``dataset`` of the new place, so that another machine can train from there:

    dataset/contents.json    name of the data set and of the plan, size and checksum of each file
    dataset/colipriPlans.json, dataset.json, dataset_fingerprint.json, splits_final.json

Here they stay what they are: a file that differs is named, never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.paths import dataset_id
from colipri.plans.plans import Plans
from colipri.preprocessing.files import file_digest
from colipri.preprocessing.records import plans_digest
from colipri.preprocessing.store_place import Place

logger = logging.getLogger(__name__)

FOLDER = "dataset"
CONTENTS = "contents.json"
DESCRIPTION, FINGERPRINT, SPLITS = "dataset.json", "dataset_fingerprint.json", "splits_final.json"


def put_companions(place: Place, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Copy the companions of a store to its new place; those that changed, again.

    Args:
        place: that the store is moved to.
        folder: of the store.
        manifest: of the store.
    """
    names = (f"{manifest['plans_name']}.json", DESCRIPTION, FINGERPRINT, SPLITS)
    found = [folder.parent / name for name in names if (folder.parent / name).is_file()]
    content = {
        "dataset_name": manifest["dataset_name"],
        "plans_name": manifest["plans_name"],
        "data_identifier": manifest["data_identifier"],
        "files": {path.name: file_digest(path) for path in found},
    }
    target = Place(f"{place.url}/{FOLDER}")
    text = json.dumps(content, indent=2).encode()
    if CONTENTS in target.sizes() and target.read(CONTENTS) == text:
        return
    for path in found:
        target.put(path)
    target.put_bytes(CONTENTS, text)


def fetch_companions(source: str, preprocessed: Path, wanted: str) -> tuple[str, str] | None:
    """Bring the companions of a moved store here.

    Args:
        source: folder or URL of the store.
        preprocessed: $colipri_preprocessed.
        wanted: number or name of the data set that the user asks for.

    Returns:
        Name of the data set, and of the folder for the store in it; None if the store was moved
        without companions.

    Raises:
        ColipriError: the store is of another data set, or a file here differs from the one there.
    """
    place = Place(f"{source.rstrip('/')}/{FOLDER}")
    if CONTENTS not in place.sizes():
        return None
    content = json.loads(place.read(CONTENTS))
    name, identifier = _plain(content["dataset_name"]), _plain(content["data_identifier"])
    if wanted not in (name, str(dataset_id(name))):
        raise ColipriError(f"{source} holds a store of {name}, not of {wanted}")
    number = f"Dataset{dataset_id(name):03d}_"
    others = [p.name for p in preprocessed.glob(f"{number}*") if p.is_dir() and p.name != name]
    if others:
        raise ColipriError(
            f"the number {dataset_id(name)} belongs to {others[0]} here and to {name} in {source}; "
            f"rename {preprocessed / others[0]}"
        )
    folder = preprocessed / name
    plans = f"{_plain(content['plans_name'])}.json"
    for file, about in content["files"].items():
        target = folder / _plain(file)
        if not target.is_file():
            place.fetch(file, target, about)
            logger.info("%s: fetched", target)
        elif hashlib.sha256(target.read_bytes()).hexdigest() == about["sha256"]:
            continue
        elif file == plans and _same_cases(target, place.read(file)):
            logger.info("%s: kept; it differs, but describes the same stored cases", target)
        elif file == FINGERPRINT:
            logger.info("%s: kept; it differs from the one in %s", target, place.url)
        else:
            raise ColipriError(
                f"{target} differs from the one in {place.url}; rename it to take that one, or "
                "use another $colipri_preprocessed"
            )
    return name, identifier


def _same_cases(path: Path, other: bytes) -> bool:
    """True if two plans give the same stored cases in all configurations that both have."""
    mine, theirs = (Plans.from_dict(json.loads(content)) for content in (path.read_bytes(), other))
    shared = set(mine.configurations) & set(theirs.configurations)
    return bool(shared) and all(
        plans_digest(mine, mine.configuration(name))
        == plans_digest(theirs, theirs.configuration(name))
        for name in shared
    )


def _plain(name: str) -> str:
    """Return the name of a file or folder.

    Raises:
        ColipriError: it is a path, which could leave its folder.
    """
    if not name or name in (".", "..") or Path(name).name != name or "\\" in name:
        raise ColipriError(f"{CONTENTS} names '{name}', which is not the name of a file")
    return name
