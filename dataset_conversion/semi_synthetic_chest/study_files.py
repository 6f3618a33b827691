"""The files of one study: images, label maps, report, and the rows of cases.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_path, atomic_write_json, atomic_write_text, read_json
from colipri.dataset_conversion.semi_synthetic_chest.study import Study, StudyPlan, make_study
from colipri.imageio.integrity import require_whole


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
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(study.spacings[index])))
    stored = ("LPS", "RAS", "LPI")[(study.plan.number + index) % 3]
    image = sitk.DICOMOrient(image, stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        require_whole([temporary])  # a full disk is no error to the NIfTI writer
