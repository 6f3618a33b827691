"""Write the semi-synthetic chest set as a raw data set, one study at a time."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from colipri.common.atomic import atomic_path, atomic_write_json, atomic_write_text, read_json
from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.dataset_conversion.semi_synthetic_chest.findings import findings_of
from colipri.dataset_conversion.semi_synthetic_chest.sources import source_names
from colipri.dataset_conversion.semi_synthetic_chest.study import Study, StudyPlan, make_study
from colipri.dataset_conversion.semi_synthetic_chest.variants import FIRST
from colipri.imageio.integrity import require_whole

FORMAT = 6  # raise it when the same seed would give other files
IMAGE_ONLY = 0.1  # share of training studies without a report
VALIDATION_SHARE = 0.12  # of the number of training studies; the test split has twice that


def build_dataset(
    folder: Path,
    name: str,
    num_studies: int,
    seed: int,
    num_processes: int,
    more_people: bool = True,
    variant: str = FIRST,
) -> dict[str, int]:
    """Write the data set; killed and called again, it makes only what is missing.

    Args:
        folder: $colipri_raw/DatasetXXX_Name.
        name: for dataset.json.
        num_studies: training studies; validation and test studies of other people are added.
        seed: the same seed gives the same files.
        num_processes: that make studies.
        more_people: see :func:`plan_studies`.
        variant: findings, frequencies and wordings, see variants.py.

    Returns:
        cases per split.

    Raises:
        ColipriError: the folder holds another data set, or a study could not be written.
    """
    if num_studies < 4:
        raise ColipriError(f"--num_studies must be at least 4, not {num_studies}")
    marker = {"generator": "semi_synthetic_chest", "format": FORMAT, "seed": seed}
    marker["num_studies"] = num_studies
    marker["more_people"] = more_people
    if variant != FIRST:  # folders of the first one do not name it
        marker["variant"] = variant
    _claim(folder, marker)
    plans = plan_studies(num_studies, seed, more_people, variant)
    names = [finding.name for finding in findings_of(variant)]
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
    atomic_write_text(folder / "cases.csv", _as_csv(rows, names))
    trained = [row for row in rows if row["split"] != "test"]
    atomic_write_json(folder / "dataset.json", _description(name, names, len(trained), marker))
    return {split: sum(r["split"] == split for r in rows) for split in ("train", "val", "test")}


def plan_studies(
    num_studies: int, seed: int, more_people: bool = True, variant: str = FIRST
) -> list[StudyPlan]:
    """All studies. The sources of a split are used in turn and belong to that split only.

    Args:
        num_studies: of the training split.
        seed: of the set.
        more_people: training chests between two people, in pairs that differ in their findings
            alone, under more varied scanners; validation and test stay as they are.
        variant: of the set.
    """
    counts = {
        "train": num_studies,
        "val": max(2, round(num_studies * VALIDATION_SHARE)),
        "test": max(4, round(num_studies * 2 * VALIDATION_SHARE)),
    }
    plans: list[StudyPlan] = []
    for split, count in counts.items():
        names = source_names(split)
        blended = more_people and split == "train"
        for index in range(count):
            number = len(plans)
            place = number // 2 if blended else index  # twins share a person
            rng = np.random.default_rng([seed, number, 7])
            plans.append(
                StudyPlan(
                    identifier=f"chest_{number:04d}",
                    source=names[place % len(names)],
                    split=split,
                    seed=seed,
                    number=number,
                    with_report=split != "train" or rng.random() >= IMAGE_ONLY,
                    twins=place if blended else None,
                    variant=variant,
                )
            )
    return plans


def _claim(folder: Path, marker: dict[str, Any]) -> None:
    """Refuse a folder started with other settings: it would mix data sets."""
    path = folder / "generator.json"
    if path.is_file():
        if read_json(path) != marker:
            raise ColipriError(
                f"{folder} was started with other settings ({path}); remove it or choose another -d"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ColipriError(f"{folder} is not empty; remove it or choose another -d")
    atomic_write_json(path, marker)


def _as_csv(rows: list[dict[str, Any]], names: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case", "subject", "study", "split", *names])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().replace("\r\n", "\n")


def _description(
    name: str, findings: list[str], num_training: int, marker: dict[str, Any]
) -> dict[str, Any]:
    labels = {"background": 0}
    labels.update({finding: value for value, finding in enumerate(findings, start=1)})
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
        "findings": findings,
        "semi_synthetic": marker,
    }


@dataclass(frozen=True)
class BuildTask:
    """One study and the folder it goes into."""

    plan: StudyPlan
    folder: Path


def write_study(task: BuildTask) -> list[dict[str, Any]]:
    """Write a study's files; its row file comes last and says that it is complete."""
    plan = task.plan
    row_file = task.folder / "studies" / f"{plan.identifier}.json"
    if row_file.is_file():
        stored: list[dict[str, Any]] = read_json(row_file)
        return stored
    study = make_study(plan)
    suffix = "Ts" if plan.split == "test" else "Tr"
    rows = []
    for index in range(len(study.volumes)):
        case = f"{plan.identifier}_{index + 1}"
        _write_image(study, index, task.folder / f"images{suffix}" / f"{case}_0000.nii.gz")
        _write_labels(study, index, task.folder / f"labels{suffix}" / f"{case}.nii.gz")
        _write_report(study, task.folder / f"reports{suffix}" / case)
        labels = {name: "" if v is None else v for name, v in study.findings.items()}
        rows.append(
            {
                "case": case,
                "subject": plan.identifier,
                "study": plan.identifier,
                "split": plan.split,
                **labels,
            }
        )
    atomic_write_json(row_file, rows)
    return rows


def _write_report(study: Study, path: Path) -> None:
    if not study.plan.with_report:
        return
    if study.text is None:
        atomic_write_json(path.with_name(path.name + ".json"), study.sections)
    else:
        atomic_write_text(path.with_name(path.name + ".txt"), study.text)


def _write_image(study: Study, index: int, path: Path) -> None:
    _write(study.volumes[index], study, index, path)


def _write_labels(study: Study, index: int, path: Path) -> None:
    _write(study.label_maps[index], study, index, path)


def _write(array: np.ndarray, study: Study, index: int, path: Path) -> None:
    """As NIfTI; the axes are stored in one of several orders, as in real archives."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(study.spacings[index])))
    stored = ("LPS", "RAS", "LPI")[(study.plan.number + index) % 3]
    image = sitk.DICOMOrient(image, stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        require_whole([temporary])  # the NIfTI writer does not report a full disk
