"""Make one case of a store from its source files; runs in worker processes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_bytes, atomic_write_json
from colipri.common.errors import ColipriError
from colipri.imageio.reading import read_image
from colipri.preprocessing.files import compress
from colipri.preprocessing.image import preprocess_image
from colipri.preprocessing.label_map import preprocess_label_map
from colipri.preprocessing.records import (
    CaseTask,
    case_files,
    case_metadata,
    failure_file,
    image_digest,
    label_file,
    metadata_digest,
    read_record,
)
from colipri.preprocessing.store import MANIFEST
from colipri.raw_dataset.structured_reports import load_structured_report


@dataclass(frozen=True)
class CaseResult:
    """What was done for a case.

    Attributes:
        status: "unchanged", "metadata_updated" (only metadata or report had changed), "written", or
            "unwritable": the fault is the store's disk or permissions, not the case.
        problem: one line, if unwritable.
    """

    status: str
    problem: str | None = None


class _UnwritableStoreError(ColipriError):
    """Writing failed; --keep_going must not blame the case for it."""


def preprocess_case(task: CaseTask) -> CaseResult:
    """Write whatever is missing or out of date for one case.

    Raises:
        ColipriError: the case is broken; the message names it and the file.
    """
    try:
        return CaseResult(_bring_up_to_date(task))
    except _UnwritableStoreError as error:
        return CaseResult("unwritable", str(error))
    except ColipriError as error:
        raise ColipriError(f"case {task.case.identifier}: {error}") from error


def _bring_up_to_date(task: CaseTask) -> str:
    """The status of :class:`CaseResult`."""
    case, folder = task.case, task.folder
    digests = {"image_digest": image_digest(task), "metadata_digest": metadata_digest(case)}
    record = read_record(folder, case.identifier)
    same_image = record is not None and record["image_digest"] == digests["image_digest"]
    if (
        same_image
        and record is not None
        and record["metadata_digest"] == digests["metadata_digest"]
    ):
        with _writing():
            failure_file(folder, case.identifier).unlink(missing_ok=True)
        return "unchanged"
    structured = load_structured_report(case)
    report = None if structured is None else structured.to_dict()
    stored: dict[str, Any]
    _invalidate(folder, case.identifier)
    if same_image and record is not None:
        status = "metadata_updated"
        stored = {key: record[key] for key in ("image", "files", "place") if key in record}
    else:
        status, stored = "written", _write_arrays(task)
    content = {
        "case": case.identifier,
        **digests,
        **case_metadata(case),
        "report": report,
        **stored,
    }
    with _writing():
        # The JSON comes last and marks the case as finished: if a run is killed before this line,
        # the next one makes the case again.
        atomic_write_json(folder / f"{case.identifier}.json", content)
        failure_file(folder, case.identifier).unlink(missing_ok=True)
    return status


@contextmanager
def _writing() -> Iterator[None]:
    """Errors in this block are the store's fault, not the case's."""
    try:
        yield
    except (ColipriError, OSError) as error:
        raise _UnwritableStoreError(str(error)) from error


def _invalidate(folder: Path, case: str) -> None:
    """Mark the folder and the case as unfinished before the case changes."""
    with _writing():
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / f"{case}.json").unlink(missing_ok=True)


def _write_arrays(task: CaseTask) -> dict[str, Any]:
    """Read the image, preprocess it and write the arrays.

    Returns:
        The record's "image" (properties) and "files" (sizes and checksums).
    """
    case, folder = task.case, task.folder
    image = read_image(case.images, task.plans.orientation)
    array, properties = preprocess_image(image, task.plans, task.configuration)
    body_grid = properties.pop("body_grid")
    image_file, grid_file = case_files(case.identifier)
    contents = {
        image_file: compress(array, task.configuration.raw["patch_size"]),
        grid_file: compress(body_grid, None),
    }
    if case.label is not None:
        label, properties["label_voxels"] = preprocess_label_map(
            case.label, task.plans.orientation, properties
        )
        patch = task.configuration.raw["patch_size"]
        contents[label_file(case.identifier)] = compress(label[None], patch)
    files = {}
    for name, content in contents.items():
        with _writing():
            atomic_write_bytes(folder / name, content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    properties["channels"] = int(array.shape[0])
    original = {key: value for key, value in image.properties.items() if key != "files"}
    properties["original"] = _plain(original)  # file names are in the metadata, without paths
    return {"image": properties, "files": files}


def _plain(value: Any) -> Any:
    """Convert what a reader returns (paths, tuples, numpy numbers and arrays) to JSON data."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    return str(value)
