"""Scans of the semi-synthetic set with their label maps, one at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from colipri.dataset_conversion.semi_synthetic_chest.build import plan_studies
from colipri.dataset_conversion.semi_synthetic_chest.findings import FINDINGS
from colipri.dataset_conversion.semi_synthetic_chest.study import StudyPlan, make_study

FINDING = "Pleural effusion"
EFFUSION = 1 + [finding.name for finding in FINDINGS].index(FINDING)


def plans_of(split: str) -> list[StudyPlan]:
    """The studies of a split; scans of the splits are made of different patients."""
    return [plan for plan in plan_studies(60, 5) if plan.split == split]


def make_scan(plan: StudyPlan, folder: Path) -> tuple[Path, Path]:
    """Write scan.nii.gz and mask.nii.gz of a study's first reconstruction; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    study = make_study(plan)
    paths = []
    for name, array in (("scan", study.volumes[0]), ("mask", study.label_maps[0])):
        image = sitk.GetImageFromArray(np.asarray(array))
        image.SetSpacing(tuple(reversed(study.spacings[0])))
        paths.append(folder / f"{name}.nii.gz")
        sitk.WriteImage(image, str(paths[-1]))
    return paths[0], paths[1]
