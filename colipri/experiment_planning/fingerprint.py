"""dataset_fingerprint.json: everything that planning may depend on, and nothing else.

Only cases that may be trained on or validated on count; test cases never influence a plan.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.common.parallel import default_num_processes, run_parallel
from colipri.experiment_planning.image_fingerprint import ImageTask, fingerprint_image
from colipri.paths import preprocessed_folder
from colipri.raw_dataset.dataset import Case, RawDataset, load_raw_dataset

if TYPE_CHECKING:
    from colipri.text.structuring import StructuredReport

logger = logging.getLogger(__name__)

FINGERPRINT_VERSION = 1
FINGERPRINT_FILE = "dataset_fingerprint.json"


def extract_fingerprint(
    dataset: RawDataset | str | int,
    num_processes: int | None = None,
    keep_going: bool = False,
) -> dict[str, Any]:
    """Read all images and reports of a data set and write its fingerprint.

    Killed and run again, only what is missing or changed is read.

    Args:
        dataset: loaded, or its number or name.
        num_processes: None means nnUNet_def_n_proc or the number of cores.
        keep_going: leave out cases that cannot be read (they are logged).

    Returns:
        The content of $colipri_preprocessed/DatasetXXX/dataset_fingerprint.json.

    Raises:
        ColipriError: cases cannot be read (without ``keep_going``), or none can.
    """
    if not isinstance(dataset, RawDataset):
        dataset = load_raw_dataset(dataset)
    folder = preprocessed_folder() / dataset.name
    cases = [case for case in dataset.cases if case.split != "test"]
    if not cases:
        raise ColipriError(f"{dataset.name} has test cases only; there is nothing to plan for")
    tasks = [ImageTask(case, dataset.channel_names, folder / "fingerprint_cases") for case in cases]
    found, problems = {}, []
    for outcome in run_parallel(
        fingerprint_image, tasks, num_processes or default_num_processes(), "fingerprint"
    ):
        if outcome.result is None:
            problems.append(f"{outcome.item.case.identifier}: {outcome.problem}")
        else:
            found[outcome.item.case.identifier] = outcome.result
    for problem in sorted(problems):
        logger.warning("left out: %s", problem)
    if problems and not keep_going:
        raise ColipriError(
            f"{len(problems)} of {len(cases)} cases cannot be read, first {sorted(problems)[0]}; "
            "mend them, or leave them out with --keep_going"
        )
    if not found:
        raise ColipriError(f"no case of {dataset.name} could be read")
    readable = [case for case in cases if case.identifier in found]
    fingerprint = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "dataset_name": dataset.name,
        "channel_names": dataset.channel_names,
        **_counts(readable),
        **_images([found[case.identifier] for case in readable]),
        "findings": _prevalence(readable, dataset.finding_names),
        "text": _text(readable),
        "left_out": sorted(problems),
    }
    atomic_write_json(folder / FINGERPRINT_FILE, fingerprint)
    return fingerprint


def fingerprint_path(dataset_name: str) -> Path:
    """Where the fingerprint of a data set lies."""
    return preprocessed_folder() / dataset_name / FINGERPRINT_FILE


def _counts(cases: Sequence[Case]) -> dict[str, Any]:
    paired = [case for case in cases if case.report is not None]
    return {
        "num_cases": len(cases),
        "num_subjects": len({case.subject for case in cases}),
        "num_studies": len({case.study for case in cases}),
        "num_paired_cases": len(paired),
        "num_paired_studies": len({case.study for case in paired}),
        "num_image_only_cases": len(cases) - len(paired),
        "num_by_split": dict(sorted(Counter(case.split or "unassigned" for case in cases).items())),
    }


def _images(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """nnU-Net's lists, and percentiles of what nnU-Net does not look at."""
    channels = range(len(found[0]["samples"]))
    intensities = {}
    for channel in channels:
        values = np.concatenate([np.array(case["samples"][channel]) for case in found])
        low, middle, high = np.percentile(values, [0.5, 50, 99.5])
        intensities[str(channel)] = {
            "mean": float(values.mean()),
            "median": float(middle),
            "std": float(values.std()),
            "min": min(case["minimum"][channel] for case in found),
            "max": max(case["maximum"][channel] for case in found),
            "percentile_00_5": float(low),
            "percentile_99_5": float(high),
        }
    extents = np.array([case["body_extent_mm"] for case in found])
    levels = (5, 50, 95, 99, 100)
    return {
        "spacings": [case["spacing"] for case in found],
        "shapes_after_crop": [case["shape_after_crop"] for case in found],
        "foreground_intensity_properties_per_channel": intensities,
        "body_extents_mm": [[round(float(v), 2) for v in row] for row in extents],
        "body_extent_mm_percentiles": {
            str(level): [round(float(v), 2) for v in np.percentile(extents, level, axis=0)]
            for level in levels
        },
        "body_fraction_median": float(np.median([case["body_fraction"] for case in found])),
        "orientations": dict(sorted(Counter(case["orientation"] for case in found).items())),
        "dtypes": dict(sorted(Counter(case["dtype"] for case in found).items())),
    }


def _prevalence(cases: Sequence[Case], names: Iterable[str]) -> dict[str, Any]:
    result = {}
    for name in names:
        known = [value for case in cases if (value := case.findings.get(name)) is not None]
        result[name] = {
            "known": len(known),
            "positive": sum(known),
            "prevalence": round(sum(known) / len(known), 4) if known else None,
        }
    return result


def _text(cases: Sequence[Case]) -> dict[str, Any]:
    from colipri.text.text_fingerprint import text_fingerprint

    return text_fingerprint(_reports(cases))


def _reports(cases: Sequence[Case]) -> Iterator[StructuredReport]:
    """One report a study: reconstructions repeat it and must not count as duplicates."""
    from colipri.text.report import read_report
    from colipri.text.structuring import structure_report

    seen: set[str] = set()
    for case in cases:
        if case.report is not None and case.study not in seen:
            seen.add(case.study)
            yield structure_report(read_report(case.report))
