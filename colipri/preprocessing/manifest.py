"""manifest.json: what makes a folder of cases a finished, consistent store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.paths import dataset_id, preprocessed_folder
from colipri.preprocessing.body_grid import cell_size_of
from colipri.preprocessing.files import file_digest, write_reports
from colipri.preprocessing.intensities import padding_value
from colipri.preprocessing.line_table import write_lines
from colipri.preprocessing.records import (
    SHARDS_VERSION,
    STORE_VERSION,
    CaseTask,
    failure_reason,
    is_current,
    plans_digest,
    read_record,
)
from colipri.preprocessing.shard_reading import location_of
from colipri.preprocessing.shards import RECORDS_ENDING, SHARD_ENDING, sealed_records
from colipri.preprocessing.store import CASES, MANIFEST, REPORTS, CaseStore

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
    packs: bool = False,
) -> None:
    """Write reports.jsonl, then manifest.json, which makes the folder a readable store.

    The content depends only on the cases (sorted, no dates), so that parts of a job array that
    finish at the same time write the same bytes.

    Args:
        plans, configuration: that the cases were made with.
        folder: of the store.
        records: case -> its record.
        failed: case -> why it was skipped.
        packs: True if the arrays are in shards; the cases are then in cases.jsonl.
    """
    reports = {name: record["report"] for name, record in records.items() if record["report"]}
    places = write_reports(folder / REPORTS, reports)
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
    if packs:
        content = packed_manifest(folder, content, records, places)
    atomic_write_json(folder / MANIFEST, content)


def packed_manifest(
    folder: Path,
    content: dict[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    reports: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
    """Write cases.jsonl, and return the manifest of a store in shards.

    Args:
        folder: of the store.
        content: of the manifest, with the cases.
        records: case -> its record, with its place.
        reports: case -> offset and length of its line in reports.jsonl.
    """
    sealed = sealed_records(folder)
    rows = (
        {
            "case": name,
            **entry,
            "place": records[name]["place"],
            "record": sealed.places[name],
            "report": reports.get(name),
        }
        for name, entry in content["cases"].items()
    )
    table = write_lines(folder / CASES, rows)
    used = sorted({records[name]["place"]["shard"] for name in records})
    parts = sorted({sealed.places[name][0] for name in records})
    rest = {key: value for key, value in content.items() if key != "cases"}
    return {
        **rest,
        "store_version": SHARDS_VERSION,
        "num_cases": len(records),
        "files": {
            CASES: {"bytes": len(table), "sha256": hashlib.sha256(table).hexdigest()},
            **{n: file_digest(folder / n) for n in (REPORTS, *(p + RECORDS_ENDING for p in parts))},
            **{name + SHARD_ENDING: sealed.shards[name] for name in used},
        },
    }


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
    if store.manifest.get("store_version") not in (STORE_VERSION, SHARDS_VERSION):
        raise ColipriError(f"{folder} was written by a different version of colipri; run {command}")
    if store.manifest["plans_digest"] != plans_digest(plans, configuration):
        raise ColipriError(
            f"{folder} was preprocessed with a different plan of {configuration_name} (spacing, "
            f"resampling or normalisation have changed); run {command}"
        )
    if not store.manifest["cases"]:
        raise ColipriError(f"{folder} contains no cases; run {command} and see what it reports")
    require_whole(store)
    return store


def require_whole(store: CaseStore) -> None:
    """Check by names and sizes that the files of a store in shards are there.

    Raises:
        ColipriError: some are missing: the store was moved or copied in part.
    """
    missing = missing_files(store.folder, store.manifest)
    if missing:
        total = len(store.manifest["files"])
        raise ColipriError(
            f"{store.folder} was moved or copied in part: {len(missing)} of {total} files are "
            f"missing or cut off, the first is {missing[0]}; finish the copy (colipri_store move "
            "continues where it stopped), or run colipri_preprocess again"
        )


def missing_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return the files of a store in shards that are not here in their full size.

    Shards that were moved elsewhere count as there.
    """
    elsewhere = location_of(folder) is not None
    missing = []
    for name, about in manifest.get("files", {}).items():
        try:
            whole = (folder / name).stat().st_size == about["bytes"]
        except OSError:
            whole = elsewhere and name.endswith(SHARD_ENDING)
        if not whole:
            missing.append(name)
    return missing


def _entry(record: dict[str, Any]) -> dict[str, Any]:
    """What training needs to know about a case without opening its files."""
    image = record["image"]
    label = {"label_voxels": image["label_voxels"]} if "label_voxels" in image else {}
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
        **label,
    }
