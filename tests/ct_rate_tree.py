"""A small CT-RATE with its exact layout and column names, made from real scans."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from conversion import SCANS

from colipri.dataset_conversion.ct_rate.source import FINDINGS, METADATA

REPORTS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
SPACING = (4.0, 4.0, 3.5)
ORIGIN = (-170.5, -20.25, -310.0)
HU = np.clip(
    sitk.GetArrayFromImage(sitk.ReadImage(str(SCANS / "cip_ct64.nii.gz"))), -1024, 3000
).astype(np.int16)


def write_table(path: Path, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


class Tree:
    """A downloaded CT-RATE of a few volumes."""

    def __init__(self, root: Path, ending: str = "_fixed") -> None:
        self.root, self.ending = root / "dataset", ending
        self.reports: dict[str, list[list[Any]]] = {"train": [], "valid": []}
        self.labels: dict[str, list[list[Any]]] = {"train": [], "valid": []}
        self.metadata: dict[str, list[list[Any]]] = {"train": [], "valid": []}
        self.no_chest: dict[str, list[str]] = {"train": [], "valid": []}

    def add(
        self,
        name: str,
        findings: str = "Bilateral pleural effusion.",
        image: sitk.Image | None = None,
        write: bool = True,
        **metadata: Any,
    ) -> Path:
        """One volume with its rows."""
        split, patient, study, _ = name.split("_")
        folder = f"{split}{self.ending}/{split}_{patient}/{split}_{patient}_{study}"
        path = self.root / folder / f"{name}.nii.gz"
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image or with_header(HU), str(path))
        volume = f"{name}.nii.gz"
        self.reports[split].append([volume, "Not given.", "CT", findings, "Effusion."])
        self.labels[split].append([volume, *[int(n % 3 == 0) for n in range(18)]])
        cells = {
            "XYSpacing": f"[{SPACING[0]}, {SPACING[1]}]", "ZSpacing": SPACING[2],
            "RescaleSlope": 1.0, "RescaleIntercept": -1024.0,
            "ImagePositionPatient": str(list(ORIGIN)),
            "ImageOrientationPatient": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
            "Rows": HU.shape[1], "Columns": HU.shape[2], **metadata,
        }  # fmt: skip
        self.metadata[split].append([volume, *[cells[column] for column in METADATA]])
        return path

    def write(self) -> Path:
        """The tables; returns what -i takes."""
        for split, long in (("train", "train"), ("valid", "validation")):
            write_table(
                self.root / "radiology_text_reports" / f"{long}_reports.csv",
                REPORTS, self.reports[split],
            )  # fmt: skip
            write_table(
                self.root / "multi_abnormality_labels" / f"{split}_predicted_labels.csv",
                ("VolumeName", *FINDINGS), self.labels[split],
            )  # fmt: skip
            write_table(
                self.root / "metadata" / f"{long}_metadata.csv",
                ("VolumeName", *METADATA), self.metadata[split],
            )  # fmt: skip
            text = "\n".join(self.no_chest[split])
            (self.root / "metadata" / f"no_chest_{split}.txt").write_text(text)
        return self.root.parent


def with_header(values: np.ndarray) -> sitk.Image:
    """A volume as the second release has it."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image
