"""The record of a preprocessed case, and the check that it is up to date.

A case is made again when its source files or the part of the plan that its voxels depend on have
changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.imageio.parts import files_of
from colipri.plans.overrides import OPTIONAL_VOXEL_ENTRIES, VOXEL_ENTRIES
from colipri.preprocessing.shards import sealed_records
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.structured_reports import structured_reports_file

if TYPE_CHECKING:
    from colipri.plans.plans import Configuration, Plans

DIGEST_LENGTH = 32  # hex digits of the digests that a store contains

# Increase this when the same image and plan give different voxels or a different file layout.
STORE_VERSION = 1
SHARDS_VERSION = 2  # of manifest.json where the cases are in shards

_KEYS = {"image_digest", "metadata_digest", "image", "report"}


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to make one case in one configuration.

    Attributes:
        case: source files and metadata.
        plans, configuration: how to preprocess it.
        folder: of the store.
    """

    case: Case
    plans: Plans
    configuration: Configuration
    folder: Path


def case_files(case: str) -> tuple[str, str]:
    """Names of the array files that every case has: its image, and its body grid."""
    return f"{case}.b2nd", f"{case}_tokens.b2nd"


def label_file(case: str) -> str:
    """Name of the array file of a case's label map; nnU-Net's name for it."""
    return f"{case}_seg.b2nd"


def possible_files(case: str) -> tuple[str, str, str]:
    """Names of all array files that a case may have."""
    return (*case_files(case), label_file(case))


def failure_file(folder: Path, case: str) -> Path:
    """Where --keep_going stores the reason why a case could not be made."""
    return folder / f"{case}.failed.json"


def read_record(folder: Path, case: str) -> dict[str, Any] | None:
    """The JSON of a finished case, or None if the case is incomplete.

    It is in a file of its own, or in a shard (colipri.preprocessing.shards); the file is newer.
    Array files and shards are checked by their size only.
    """
    return _read_staged(folder, case) or sealed_records(folder).record(case)


def _read_staged(folder: Path, case: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
        if "place" in record:  # only the metadata are newer than the shard
            whole = sealed_records(folder).is_there(record["place"]["shard"])
            return record if whole and _KEYS.issubset(record) else None
        for name, expected in record["files"].items():
            if (folder / name).stat().st_size != expected["bytes"]:
                return None
        names = set(record["files"])
        whole = set(case_files(case)) <= names <= set(possible_files(case))
        if not whole or not _KEYS.issubset(record):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def case_metadata(case: Case) -> dict[str, Any]:
    """The part of a case's record that comes from cases.csv."""
    return {
        "subject": case.subject,
        "study": case.study,
        "split": case.split,
        "dataset": case.dataset,
        "findings": dict(case.findings),
        "source_images": [path.name for path in case.images],
        "source_report": case.report.name if case.report else None,
    }


def is_current(record: dict[str, Any], task: CaseTask) -> bool:
    """True if a record was made from the present source files and plan."""
    try:
        return record["image_digest"] == image_digest(task) and record.get(
            "metadata_digest"
        ) == metadata_digest(task.case)
    except ColipriError:  # a source file is missing: making the case will report it
        return False


def failure_reason(folder: Path, case: str) -> str | None:
    """The reason that --keep_going stored for a case; None if the case did not fail."""
    path = failure_file(folder, case)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["problem"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} cannot be read"


def image_digest(task: CaseTask) -> str:
    """Digest of what the arrays of a case depend on: its image files, label map and the plan."""
    parts = [source_digest(task.case.images), plans_digest(task.plans, task.configuration)]
    if task.case.label is not None:
        parts.append(source_digest([task.case.label]))
    return json_digest(parts, DIGEST_LENGTH)


def metadata_digest(case: Case) -> str:
    """Digest of what the rest of a case's JSON depends on: its row of cases.csv and its report."""
    files = [case.report] if case.report else []
    structured = structured_reports_file(case)
    if files and structured is not None:
        files.append(structured)
    return json_digest([case_metadata(case), source_digest(files)], DIGEST_LENGTH)


def plans_digest(plans: Plans, configuration: Configuration) -> str:
    """Digest of the part of the plan that the stored voxels depend on."""
    relevant: dict[str, Any] = {key: configuration.raw[key] for key in VOXEL_ENTRIES}
    relevant |= {
        key: configuration.raw[key] for key in OPTIONAL_VOXEL_ENTRIES if key in configuration.raw
    }
    relevant["spacing"] = [float(step) for step in relevant["spacing"]]  # 2 and 2.0 are the same
    relevant["orientation"] = plans.raw["orientation"]
    relevant["channel_names"] = plans.raw["channel_names"]
    relevant["store_version"] = STORE_VERSION
    if configuration.raw["storage_dtype"] != "int16":  # the stored voxels are normalised
        relevant["intensities"] = plans.raw["foreground_intensity_properties_per_channel"]
    return json_digest(relevant, DIGEST_LENGTH)


def source_digest(files: Iterable[Path]) -> str:
    """Digest of names, sizes and modification times of image files or DICOM folders.

    An image of several files (a.mhd and a.raw) counts as all of them. Contents are not read,
    because that would mean reading terabytes twice.

    Raises:
        ColipriError: a file is missing.
    """
    entries = []
    for path in files:
        try:
            for member in files_of(path):
                status = member.stat()
                entries.append([member.name, status.st_size, status.st_mtime_ns])
        except OSError as error:
            raise ColipriError(f"{path} cannot be read: {error.strerror}") from error
    return json_digest(entries, DIGEST_LENGTH)
