"""manifest.json: what makes a folder of cases a finished, consistent store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.preprocessing.case import (
    CaseTask,
    failure_file,
    image_digest,
    metadata_digest,
    read_record,
)
from colipri.preprocessing.cells import cell_size_of
from colipri.preprocessing.digests import STORE_VERSION, plans_digest
from colipri.preprocessing.intensities import padding_value
from colipri.preprocessing.reports_file import write_reports
from colipri.preprocessing.store import MANIFEST, REPORTS, CaseStore

if TYPE_CHECKING:
    from colipri.experiment_planning.plans import Configuration, Plans


def collect_records(
    tasks: Sequence[CaseTask],
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str]]:
    """Sort all cases of a data set by what has become of them.

    Returns:
        Records of the cases that are finished and up to date, reasons of those that were left out
        with --keep_going, and the cases that nobody has made yet (another part is at it).
    """
    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    missing = []
    for task in tasks:
        name = task.case.identifier
        reason = _failure(task.folder, name)
        if reason is not None:
            failed[name] = reason
            continue
        record = read_record(task.folder, name)
        if record is not None and _is_current(record, task):
            records[name] = record
        else:
            missing.append(name)
    return records, failed, missing


def write_manifest(
    plans: Plans,
    configuration: Configuration,
    folder: Path,
    records: dict[str, dict[str, Any]],
    failed: dict[str, str],
) -> None:
    """Write reports.jsonl, then manifest.json: from then on the folder can be read as a store.

    The content depends on the cases alone (no dates, sorted), so that parts of a job array that
    finish at the same time write the same bytes.
    """
    reports = {name: record["report"] for name, record in records.items() if record["report"]}
    write_reports(folder / REPORTS, reports)
    content = {
        "store_version": STORE_VERSION,
        "dataset_name": plans.raw["dataset_name"],
        "plans_name": plans.raw["plans_name"],
        "data_identifier": configuration.raw["data_identifier"],
        "plans_digest": plans_digest(plans, configuration),
        "orientation": plans.raw["orientation"],
        "channel_names": plans.raw["channel_names"],
        "spacing": configuration.raw["spacing"],
        "token_patch_size": configuration.raw["token_patch_size"],
        "cell_size": list(cell_size_of(configuration.raw["token_patch_size"])),
        "dtype": configuration.raw["storage_dtype"],
        "pad_value": padding_value(configuration),
        "cases": {name: _entry(records[name]) for name in sorted(records)},
        "failed": {name: failed[name] for name in sorted(failed)},
    }
    atomic_write_json(folder / MANIFEST, content)


def check_preprocessed(dataset_name: str, plans: Plans, configuration_name: str) -> CaseStore:
    """The store of a configuration, after checking that it is whole and made with this plan.

    Raises:
        ColipriError: never preprocessed, not finished, or made with other numbers.
    """
    from colipri.paths import dataset_id, preprocessed_folder

    configuration = plans.configuration(configuration_name)
    folder = preprocessed_folder() / dataset_name / configuration.raw["data_identifier"]
    command = f"colipri_preprocess -d {dataset_id(dataset_name)} -c {configuration_name}"
    if plans.raw["plans_name"] != "colipriPlans":
        command += f" -p {plans.raw['plans_name']}"
    if not (folder / MANIFEST).is_file():
        state = "is not finished" if folder.is_dir() and any(folder.iterdir()) else "was never run"
        raise ColipriError(
            f"configuration {configuration_name} of {dataset_name} was not preprocessed "
            f"(preprocessing {state}); run {command}"
        )
    store = CaseStore(folder)
    if store.manifest.get("store_version") != STORE_VERSION:
        raise ColipriError(f"{folder} was written by another version of colipri; run {command}")
    if store.manifest["plans_digest"] != plans_digest(plans, configuration):
        raise ColipriError(
            f"{folder} was preprocessed with other numbers than the plan of {configuration_name} "
            f"says now (spacing, resampling or normalisation); run {command}"
        )
    if not store.manifest["cases"]:
        raise ColipriError(f"{folder} holds no case at all; run {command} and see what it reports")
    return store


def _is_current(record: dict[str, Any], task: CaseTask) -> bool:
    try:
        return record["image_digest"] == image_digest(task) and record.get(
            "metadata_digest"
        ) == metadata_digest(task.case)
    except ColipriError:  # a source file has vanished: the case must be made, and will say so
        return False


def _failure(folder: Path, case: str) -> str | None:
    path = failure_file(folder, case)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["problem"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} cannot be read"


def _entry(record: dict[str, Any]) -> dict[str, Any]:
    """What training needs to know of a case without opening its files."""
    image = record["image"]
    return {
        "subject": record["subject"],
        "study": record["study"],
        "split": record["split"],
        "dataset": record["dataset"],
        "findings": record["findings"],
        "has_report": record["report"] is not None,
        "shape": [image["channels"], *image["shape"]],
        "body_fraction": image["body_fraction"],
        "files": record["files"],
    }
