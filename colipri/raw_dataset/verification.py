"""All problems of a data set in one pass: every file is read, in parallel; raw data stay as is."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.common.parallel import default_num_processes, run_parallel
from colipri.paths import find_dataset_name, preprocessed_folder, raw_folder
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.problems import TableProblem
from colipri.raw_dataset.verification_cache import CaseCache, CaseResult
from colipri.raw_dataset.verification_duplicates import (
    check_duplicate_images,
    check_shared_reports,
)
from colipri.raw_dataset.verification_findings import (
    Finding,
    Verification,
    make_finding,
    sort_findings,
)
from colipri.raw_dataset.verification_images import check_images
from colipri.raw_dataset.verification_reports import check_report
from colipri.raw_dataset.verification_tables import check_tables

__all__ = ["Finding", "Verification", "verify_dataset", "write_verification"]

logger = logging.getLogger(__name__)

VERIFICATION_FILE = "verification.json"


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to look at one case."""

    case: Case
    channel_names: Mapping[str, str]
    label_values: frozenset[int] | None
    cache: CaseCache


def verify_dataset(name: str | int, num_processes: int | None = None) -> Verification:
    """Look at every file of a data set or collection.

    Each process holds one volume at a time (about three times its size as float32). Killed and run
    again, cases that were found to be without errors are not read again unless they have changed.

    Args:
        name: number or name; $colipri_raw holds it.
        num_processes: None means nnUNet_def_n_proc or the number of cores.

    Returns:
        All findings; an unreadable file or a wrong row is a finding and no exception.

    Raises:
        ColipriError: there is no such data set, or an environment variable is missing.
    """
    folder = raw_folder() / find_dataset_name(name)
    if not folder.is_dir():
        raise ColipriError(f"there is no raw data set {folder}; only raw data can be verified")
    problems: list[TableProblem] = []
    try:
        dataset = load_raw_dataset(folder, problems.append)
    except ColipriError as error:
        found = make_finding("dataset_json_invalid", "", folder / "dataset.json", str(error))
        return Verification(folder.name, 0, (found,))
    findings = [make_finding(p.code, p.case, p.file, p.what) for p in problems]
    findings += check_tables(dataset, _member_folders(dataset))
    results = _look_at_cases(dataset, num_processes or default_num_processes())
    for result in results.values():
        findings += result.findings
    images = {case: result.image_digest for case, result in results.items()}
    reports = {case: result.report_digest for case, result in results.items()}
    findings += check_duplicate_images(dataset.cases, images)
    findings += check_shared_reports(dataset.cases, reports)
    return Verification(dataset.name, len(dataset.cases), sort_findings(findings))


def write_verification(result: Verification, folder: Path) -> Path:
    """Write verification.json into ``folder``: data set, number of cases, counts, findings."""
    path = folder / VERIFICATION_FILE
    content = {
        "dataset": result.dataset,
        "num_cases": result.num_cases,
        "num_errors": len(result.errors),
        "num_warnings": len(result.warnings),
        "findings": result.to_list(),
    }
    atomic_write_json(path, content)
    return path


def check_case(task: CaseTask) -> CaseResult:
    """Everything about one case; what one worker process does."""
    kept = task.cache.load(task.case)
    if kept is not None:
        return kept
    images, image_digest = check_images(task.case, task.channel_names, task.label_values)
    report, report_digest = check_report(task.case)
    result = CaseResult([*images, *report], image_digest, report_digest)
    task.cache.store(task.case, result)
    return result


def _look_at_cases(dataset: RawDataset, num_processes: int) -> dict[str, CaseResult]:
    channels, values = dataset.channel_names, _label_values(dataset.dataset_json)
    settings = [channels, None if values is None else sorted(values)]
    cache = CaseCache(_cache_folder(dataset.name), settings)
    tasks = [CaseTask(case, channels, values, cache) for case in dataset.cases]
    results = {}
    for outcome in run_parallel(check_case, tasks, num_processes, "verification"):
        case = outcome.item.case
        result = outcome.result
        if result is None:
            logger.debug("%s", outcome.details)
            failed = make_finding("check_failed", case.identifier, None, outcome.problem or "")
            result = CaseResult([failed], "", "")
        results[case.identifier] = result
    return results


def _cache_folder(name: str) -> Path | None:
    """Raw data can be verified where $colipri_preprocessed is not set; then nothing is kept."""
    if not os.environ.get("colipri_preprocessed"):
        return None
    return preprocessed_folder() / name / "verification_cases"


def _label_values(description: dict[str, Any]) -> frozenset[int] | None:
    """What a label map may hold: nnU-Net's labels, regions (lists) included."""
    labels = description.get("labels")
    if not isinstance(labels, dict):
        return None
    values: set[int] = set()
    for value in labels.values():
        values.update(value if isinstance(value, list) else [value])
    return frozenset(values)


def _member_folders(dataset: RawDataset) -> list[Path]:
    members = dataset.dataset_json.get("members")
    if not members:
        return [dataset.folder]
    return [raw_folder() / find_dataset_name(member) for member in members]
