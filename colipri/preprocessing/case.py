"""One case from its source files to its files in the store; what one worker process does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_bytes, atomic_write_json
from colipri.common.errors import ColipriError
from colipri.preprocessing.blosc2_files import compress
from colipri.preprocessing.digests import digest_of, plans_digest, source_digest
from colipri.preprocessing.image import preprocess_image
from colipri.preprocessing.store import MANIFEST
from colipri.raw_dataset.structured_reports import (
    load_structured_report,
    structured_reports_file,
)

if TYPE_CHECKING:
    from colipri.experiment_planning.plans import Configuration, Plans
    from colipri.raw_dataset.dataset import Case


_KEYS = {"image_digest", "metadata_digest", "image", "report"}


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to make one case in one configuration."""

    case: Case
    plans: Plans
    configuration: Configuration
    folder: Path


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        status: "kept" (nothing to do), "described" (only metadata or report had changed), "made",
            or "unwritable": the store's disk or permissions are at fault and not the case.
        problem: one line, where unwritable.
    """

    status: str
    problem: str | None = None


class _UnwritableStoreError(ColipriError):
    """Writing failed; --keep_going must not blame the case for it."""


def case_files(case: str) -> tuple[str, str]:
    """Names of the array files of a case; its JSON is written last and marks it as finished."""
    return f"{case}.b2nd", f"{case}_tokens.b2nd"


def failure_file(folder: Path, case: str) -> Path:
    """Where --keep_going leaves the reason for a case that could not be made."""
    return folder / f"{case}.failed.json"


def preprocess_case(task: CaseTask) -> CaseResult:
    """Make what is missing or out of date of one case.

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
        return "kept"
    structured = load_structured_report(case)
    report = None if structured is None else structured.to_dict()
    _invalidate(folder, case.identifier)
    if same_image and record is not None:
        status, stored = "described", {key: record[key] for key in ("image", "files")}
    else:
        status, stored = "made", _make_arrays(task)
    content = {"case": case.identifier, **digests, **_metadata(case), "report": report, **stored}
    with _writing():
        # The JSON comes last and is the mark of a finished case: a run that is killed before this
        # line makes the case again.
        atomic_write_json(folder / f"{case.identifier}.json", content)
        failure_file(folder, case.identifier).unlink(missing_ok=True)
    return status


@contextmanager
def _writing() -> Iterator[None]:
    """Errors inside are the store's, not the case's."""
    try:
        yield
    except (ColipriError, OSError) as error:
        raise _UnwritableStoreError(str(error)) from error


def image_digest(task: CaseTask) -> str:
    """What the arrays of a case depend on: its image files and the plan."""
    return digest_of(
        [source_digest(task.case.images), plans_digest(task.plans, task.configuration)]
    )


def metadata_digest(case: Case) -> str:
    """What the rest of a case's JSON depends on: its row of cases.csv and its report file."""
    files = [case.report] if case.report else []
    structured = structured_reports_file(case)
    if files and structured is not None:
        files.append(structured)
    return digest_of([_metadata(case), source_digest(files)])


def read_record(folder: Path, case: str) -> dict[str, Any] | None:
    """The JSON of a finished case, or None if the case is not whole.

    Array files are checked by their size; the manifest's checksums are for a full check.
    """
    try:
        record: dict[str, Any] = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
        for name, expected in record["files"].items():
            if (folder / name).stat().st_size != expected["bytes"]:
                return None
        if set(case_files(case)) != set(record["files"]) or not _KEYS.issubset(record):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def _invalidate(folder: Path, case: str) -> None:
    """A folder in which a case changes is not finished, and neither is the case, until it is."""
    with _writing():
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / f"{case}.json").unlink(missing_ok=True)


def _metadata(case: Case) -> dict[str, Any]:
    return {
        "subject": case.subject,
        "study": case.study,
        "split": case.split,
        "dataset": case.dataset,
        "findings": dict(case.findings),
        "source_images": [path.name for path in case.images],
        "source_report": case.report.name if case.report else None,
    }


def _make_arrays(task: CaseTask) -> dict[str, Any]:
    """Read, preprocess and write the arrays; returns "image" (properties) and "files"."""
    from colipri.imageio.reading import read_image

    case, folder = task.case, task.folder
    image = read_image(case.images, task.plans.raw["orientation"])
    array, properties = preprocess_image(image, task.plans, task.configuration)
    cells = properties.pop("body_cells")
    image_file, cells_file = case_files(case.identifier)
    contents = {
        image_file: compress(array, task.configuration.raw["patch_size"]),
        cells_file: compress(cells, None),
    }
    files = {}
    for name, content in contents.items():
        with _writing():
            atomic_write_bytes(folder / name, content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    properties["channels"] = int(array.shape[0])
    original = {key: value for key, value in image.properties.items() if key != "files"}
    properties["original"] = _plain(original)  # names of files are in the metadata, without paths
    return {"image": properties, "files": files}


def _plain(value: Any) -> Any:
    """Plain JSON data from what a reader reports (paths, tuples, numpy numbers and arrays)."""
    import numpy as np

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
