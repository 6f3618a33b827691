"""A raw data set of two small real scans, to be broken in one place at a time."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import colipri.dataset_conversion.semi_synthetic_chest as shipped

SCANS = Path(shipped.__file__).parent / "scans"
NAME = "Dataset401_Broken"


def scan(name: str) -> Any:
    """A scan that is shipped with the converters, as a SimpleITK image."""
    import SimpleITK as sitk

    return sitk.ReadImage(str(SCANS / f"{name}.nii.gz"))


def voxels(image: Any) -> np.ndarray:
    """(z, y, x), a copy."""
    import SimpleITK as sitk

    array: np.ndarray = sitk.GetArrayFromImage(image)
    return array


def with_voxels(image: Any, array: np.ndarray) -> Any:
    """The image with other values on the same grid."""
    import SimpleITK as sitk

    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    return changed


class SmallRawDataset:
    """Cases a (train) and b (val) of two people, clean until something is changed.

    ``rows`` are the rows of cases.csv and ``description`` is dataset.json; both are written by
    :meth:`save`. Files are changed directly.
    """

    def __init__(self, raw: Path, name: str = NAME) -> None:
        self.name = name
        self.folder = raw / name
        self.columns = ["case", "subject", "study", "split", "image", "report", "effusion"]
        self.rows: list[dict[str, Any]] = []
        self.description: dict[str, Any] = {
            "name": "Broken",
            "channel_names": {"0": "CT"},
            "file_ending": ".nii.gz",
            "numTraining": 2,
            "findings": ["effusion"],
        }
        self.add("a", scan("cip_ct64"), "train", "There is a small left effusion.", 1)
        self.add("b", scan("cip_testinput"), "val", "No effusion. The heart is normal.", 0)

    def add(self, case: str, image: Any, split: str, report: str | None, effusion: int) -> None:
        """Another case, of a person of its own."""
        self.write_image(case, image)
        if report is not None:
            self.write_report(case, report.encode())
        self.rows.append(
            {"case": case, "subject": f"p_{case}", "split": split, "effusion": effusion}
        )

    def image(self, case: str, channel: int = 0) -> Path:
        """Where a case's image lies."""
        return self.folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"

    def report(self, case: str) -> Path:
        """Where a case's report lies."""
        return self.folder / "reportsTr" / f"{case}.txt"

    def write_image(self, case: str, image: Any, channel: int = 0) -> Path:
        """Replace an image."""
        import SimpleITK as sitk

        path = self.image(case, channel)
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        return path

    def write_label(self, case: str, image: Any) -> Path:
        """Write a label map."""
        import SimpleITK as sitk

        path = self.folder / "labelsTr" / f"{case}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        return path

    def write_report(self, case: str, content: bytes) -> Path:
        """Replace a report."""
        path = self.report(case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def row(self, case: str) -> dict[str, Any]:
        """A row of cases.csv."""
        return next(row for row in self.rows if row["case"] == case)

    def save(self) -> None:
        """Write dataset.json and cases.csv."""
        (self.folder / "dataset.json").write_text(json.dumps(self.description), encoding="utf-8")
        with (self.folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
