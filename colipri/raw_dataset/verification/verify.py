"""Find all problems of a data set in one pass: reads every file, in parallel, and changes none."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.common.parallel import default_num_processes, run_parallel
from colipri.paths import find_dataset_name, preprocessed_folder, raw_folder
from colipri.raw_dataset.dataset import RawDataset, load_raw_dataset
from colipri.raw_dataset.labels import label_values
from colipri.raw_dataset.table import TableProblem
from colipri.raw_dataset.verification.case import (
    CaseCache,
    CaseResult,
    CaseTask,
    check_case,
)
from colipri.raw_dataset.verification.issues import (
    Verification,
    make_issue,
    sort_issues,
)
from colipri.raw_dataset.verification.tables import (
    check_duplicate_images,
    check_shared_reports,
    check_tables,
)
from colipri.raw_dataset.verification.texts import check_texts

logger = logging.getLogger(__name__)

VERIFICATION_FILE = "verification.json"


def verify_dataset(name: str | int, num_processes: int | None = None) -> Verification:
    """Check every file of a data set or collection.

    Each process holds one volume at a time (about three times its size as float32). A run that was
    killed can be repeated: cases without errors are read again only if they have changed.

    Args:
        name: number or name of a data set in $colipri_raw.
        num_processes: None means nnUNet_def_n_proc or the number of cores.

    Returns:
        All issues; an unreadable file or a wrong row is an issue, not an exception.

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
        found = make_issue("dataset_json_invalid", "", folder / "dataset.json", str(error))
        return Verification(folder.name, 0, (found,))
    issues = [make_issue(p.code, p.case, p.file, p.what) for p in problems]
    issues += check_tables(dataset, _member_folders(dataset))
    results = _check_cases(dataset, num_processes or default_num_processes())
    for result in results.values():
        issues += result.issues
    images = {case: result.image_digest for case, result in results.items()}
    reports = {case: r.report for case, r in results.items() if r.report is not None}
    issues += check_duplicate_images(dataset.cases, images)
    digests = {case: report.digest for case, report in reports.items()}
    issues += check_shared_reports(dataset.cases, digests)
    issues += check_texts(dataset, reports)
    return Verification(dataset.name, len(dataset.cases), sort_issues(issues))


def write_verification(result: Verification, folder: Path) -> Path:
    """Write verification.json into ``folder``.

    It holds the data set, the number of cases, counts, the cases that ``--keep_going`` leaves out,
    and all issues ("findings").
    """
    path = folder / VERIFICATION_FILE
    content = {
        "dataset": result.dataset,
        "num_cases": result.num_cases,
        "num_errors": len(result.errors),
        "num_warnings": len(result.warnings),
        "left_out": result.left_out,
        "findings": result.to_list(),
    }
    atomic_write_json(path, content)
    return path


def read_left_out(folder: Path) -> dict[str, str]:
    """Case -> "code: message" of the cases with errors in a verification.json; {} without one."""
    path = folder / VERIFICATION_FILE
    content = read_json(path) if path.is_file() else {}
    left_out = content.get("left_out") if isinstance(content, dict) else None
    return dict(left_out) if isinstance(left_out, dict) else {}


def _check_cases(dataset: RawDataset, num_processes: int) -> dict[str, CaseResult]:
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
            failed = make_issue("check_failed", case.identifier, None, outcome.problem or "")
            result = CaseResult([failed], "")
        results[case.identifier] = result
    return results


def _cache_folder(name: str) -> Path | None:
    """None if $colipri_preprocessed is not set: verification works, but caches nothing."""
    if not os.environ.get("colipri_preprocessed"):
        return None
    return preprocessed_folder() / name / "verification_cases"


def _label_values(description: dict[str, Any]) -> frozenset[int] | None:
    """Values that a label map may contain; None if dataset.json does not say (correctly)."""
    if "labels" not in description:
        return None
    try:
        return label_values(description["labels"], "dataset.json")
    except ColipriError:  # an issue of its own
        return None


def _member_folders(dataset: RawDataset) -> list[Path]:
    members = dataset.dataset_json.get("members")
    if not members:
        return [dataset.folder]
    return [raw_folder() / find_dataset_name(member) for member in members]
