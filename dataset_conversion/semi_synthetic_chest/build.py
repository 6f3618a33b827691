"""Write the semi-synthetic chest set as a raw data set."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_json, atomic_write_text, read_json
from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.dataset_conversion.semi_synthetic_chest.findings import FINDING_NAMES
from colipri.dataset_conversion.semi_synthetic_chest.sources import source_names
from colipri.dataset_conversion.semi_synthetic_chest.study import StudyPlan
from colipri.dataset_conversion.semi_synthetic_chest.study_files import BuildTask, write_study

logger = logging.getLogger(__name__)

FORMAT = 4  # raise it when the same seed would give other files
IMAGE_ONLY = 0.1  # share of training studies without a report
VALIDATION_SHARE = 0.12  # of the number of training studies; the test split has twice that


def build_dataset(
    folder: Path, name: str, num_studies: int, seed: int, num_processes: int
) -> dict[str, int]:
    """Write the data set; killed and called again, it makes only what is missing.

    Args:
        folder: $colipri_raw/DatasetXXX_Name.
        name: for dataset.json.
        num_studies: training studies; validation and test studies of other people are added.
        seed: the same seed gives the same files.

    Returns:
        cases per split.

    Raises:
        ColipriError: the folder holds another data set, or a study could not be written.
    """
    if num_studies < 4:
        raise ColipriError(f"--num_studies must be at least 4, not {num_studies}")
    marker = {"generator": "semi_synthetic_chest", "format": FORMAT, "seed": seed}
    marker["num_studies"] = num_studies
    _claim(folder, marker)
    plans = plan_studies(num_studies, seed)
    tasks = [BuildTask(plan, folder) for plan in plans]
    rows: list[dict[str, Any]] = []
    problems = []
    for outcome in run_parallel(write_study, tasks, num_processes, "studies"):
        if outcome.result is None:
            problems.append(f"{outcome.item.plan.identifier}: {outcome.problem}")
        else:
            rows += outcome.result
    if problems:
        raise ColipriError(f"{len(problems)} studies could not be made, first {problems[0]}")
    rows.sort(key=lambda row: row["case"])
    atomic_write_text(folder / "cases.csv", _as_csv(rows))
    trained = [row for row in rows if row["split"] != "test"]
    atomic_write_json(folder / "dataset.json", _description(name, len(trained), marker))
    return {split: sum(r["split"] == split for r in rows) for split in ("train", "val", "test")}


def plan_studies(num_studies: int, seed: int) -> list[StudyPlan]:
    """All studies: the sources of a split are used by turns and belong to that split alone."""
    counts = {
        "train": num_studies,
        "val": max(2, round(num_studies * VALIDATION_SHARE)),
        "test": max(4, round(num_studies * 2 * VALIDATION_SHARE)),
    }
    plans: list[StudyPlan] = []
    for split, count in counts.items():
        names = source_names(split)
        for index in range(count):
            number = len(plans)
            rng = np.random.default_rng([seed, number, 7])
            plans.append(
                StudyPlan(
                    identifier=f"chest_{number:04d}",
                    source=names[index % len(names)],
                    split=split,
                    seed=seed,
                    number=number,
                    with_report=split != "train" or rng.random() >= IMAGE_ONLY,
                )
            )
    return plans


def _claim(folder: Path, marker: dict[str, Any]) -> None:
    """A folder that was begun with other settings would end up mixed."""
    path = folder / "generator.json"
    if path.is_file():
        if read_json(path) != marker:
            raise ColipriError(
                f"{folder} was begun with other settings ({path}); remove it or choose another -d"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ColipriError(f"{folder} is not empty; remove it or choose another -d")
    atomic_write_json(path, marker)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case", "subject", "study", "split", *FINDING_NAMES])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().replace("\r\n", "\n")


def _description(name: str, num_training: int, marker: dict[str, Any]) -> dict[str, Any]:
    labels = {"background": 0}
    labels.update({finding: value for value, finding in enumerate(FINDING_NAMES, start=1)})
    return {
        "name": name,
        "description": "Semi-synthetic chest CT: real scans, warped, with inserted findings and "
        "written reports; not for clinical conclusions",
        "licence": "that of the source scans, see semi_synthetic_chest/scans/SOURCES.md of colipri",
        "reference": "https://arxiv.org/abs/2510.15042 (method)",
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "findings": list(FINDING_NAMES),
        "semi_synthetic": marker,
    }
