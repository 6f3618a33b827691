"""manifest.json: what makes a folder of cases a finished, consistent store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, preprocessed_folder
from colipri.preprocessing.body_grid import cell_size_of
from colipri.preprocessing.files import write_reports
from colipri.preprocessing.intensities import padding_value
from colipri.preprocessing.records import (
    STORE_VERSION,
    CaseTask,
    failure_reason,
    is_current,
    plans_digest,
    read_record,
)
from colipri.preprocessing.store import MANIFEST, REPORTS, CaseStore

if TYPE_CHECKING:
    from colipri.plans.plans import Configuration, Plans


def collect_records(
    tasks: Sequence[CaseTask],
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str]]:
    """Sort all cases of a data set by their state.

    Returns:
        Records of the cases that are finished and up to date, case -> reason for those skipped with
        --keep_going, and the cases that are still missing (another part is making them).
    """
    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    missing = []
    for task in tasks:
        name = task.case.identifier
        reason = failure_reason(task.folder, name)
        if reason is not None:
            failed[name] = reason
            continue
        record = read_record(task.folder, name)
        if record is not None and is_current(record, task):
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
    """Write reports.jsonl, then manifest.json, which makes the folder a readable store.

    The content depends only on the cases (sorted, no dates), so that parts of a job array that
    finish at the same time write the same bytes.

    Args:
        plans, configuration: that the cases were made with.
        folder: of the store.
        records: case -> its record.
        failed: case -> why it was skipped.
    """
    reports = {name: record["report"] for name, record in records.items() if record["report"]}
    write_reports(folder / REPORTS, reports)
    content = {
        "store_version": STORE_VERSION,
        "dataset_name": plans.dataset_name,
        "plans_name": plans.plans_name,
        "data_identifier": configuration.data_identifier,
        "plans_digest": plans_digest(plans, configuration),
        "orientation": plans.orientation,
        "channel_names": plans.channel_names,
        "spacing": configuration.spacing,
        "token_patch_size": configuration.token_patch_size,
        "cell_size": list(cell_size_of(configuration.token_patch_size)),
        "dtype": configuration.storage_dtype,
        "pad_value": padding_value(configuration),
        "cases": {name: _entry(records[name]) for name in sorted(records)},
        "failed": {name: failed[name] for name in sorted(failed)},
        "left_out": {name: plans.left_out[name] for name in sorted(plans.left_out)},
    }
    atomic_write_json(folder / MANIFEST, content)


def check_preprocessed(dataset_name: str, plans: Plans, configuration_name: str) -> CaseStore:
    """The store of a configuration, after checking that it is complete and made with this plan.

    Args:
        dataset_name: Dataset101_ChestCT.
        plans: the plan it must have been made with.
        configuration_name: in the plan.

    Raises:
        ColipriError: the store was never made, is not finished, or was made with a different plan.
    """
    configuration = plans.configuration(configuration_name)
    folder = preprocessed_folder() / dataset_name / configuration.data_identifier
    command = f"colipri_preprocess -d {dataset_id(dataset_name)} -c {configuration_name}"
    if plans.plans_name != "colipriPlans":
        command += f" -p {plans.plans_name}"
    if not (folder / MANIFEST).is_file():
        state = "is not finished" if folder.is_dir() and any(folder.iterdir()) else "was never run"
        raise ColipriError(
            f"configuration {configuration_name} of {dataset_name} was not preprocessed "
            f"(preprocessing {state}); run {command}"
        )
    store = CaseStore(folder)
    if store.manifest.get("store_version") != STORE_VERSION:
        raise ColipriError(f"{folder} was written by a different version of colipri; run {command}")
    if store.manifest["plans_digest"] != plans_digest(plans, configuration):
        raise ColipriError(
            f"{folder} was preprocessed with a different plan of {configuration_name} (spacing, "
            f"resampling or normalisation have changed); run {command}"
        )
    if not store.manifest["cases"]:
        raise ColipriError(f"{folder} contains no cases; run {command} and see what it reports")
    return store


def _entry(record: dict[str, Any]) -> dict[str, Any]:
    """What training needs to know about a case without opening its files."""
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
