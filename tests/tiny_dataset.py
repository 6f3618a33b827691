"""A raw data set of a dozen small chest-like volumes, for tests that need files and not realism.

Bodies are ellipsoids of soft tissue with two lungs; an "effusion" fills the back of one lung.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

PLANS = Path(__file__).parent / "experiment_planning" / "example_plans.json"


def write_tiny_dataset(
    raw: Path,
    name: str = "Dataset950_Tiny",
    num_cases: int = 12,
    image_only: int = 2,
    details: str = "There is a nodule of {size} mm.",
    label_maps: bool = False,
) -> Path:
    """Write images, reports and cases.csv; every third case is held out as test.

    ``details`` is the sentence in which the reports differ. ``label_maps``: show the effusion in
    labelsTr, of all cases but the first two.
    """
    import SimpleITK as sitk

    folder = raw / name
    for part in ("imagesTr", "reportsTr", *(["labelsTr"] if label_maps else [])):
        (folder / part).mkdir(parents=True)
    rows = ["case,subject,study,split,Pleural effusion"]
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        effusion = number % 2
        image = sitk.GetImageFromArray(_volume(rng, bool(effusion)))
        image.SetSpacing((8.0, 8.0, 8.0))
        case = f"case_{number:03d}"
        sitk.WriteImage(image, str(folder / "imagesTr" / f"{case}_0000.nii.gz"))
        if label_maps and number >= 2:
            label = sitk.GetImageFromArray(_effusion().astype(np.uint8) * effusion)
            label.CopyInformation(image)
            sitk.WriteImage(label, str(folder / "labelsTr" / f"{case}.nii.gz"))
        if number < num_cases - image_only:
            text = "There is a pleural effusion." if effusion else "No pleural effusion."
            detail = details.format(number=number, size=number + 3)
            report = f"FINDINGS: {text} {detail} Bones are normal.\nIMPRESSION: {text}\n"
            (folder / "reportsTr" / f"{case}.txt").write_text(report, encoding="utf-8")
        split = ("train", "val", "test")[min(2, number % 4)] if number < 8 else "train"
        rows.append(f"{case},subject_{number},study_{number},{split},{effusion}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    description = {
        "name": name,
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
        "numTraining": num_cases,
        "findings": ["Pleural effusion"],
    }
    if label_maps:
        description["labels"] = {"background": 0, "Pleural effusion": 1}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def install_example_plans(preprocessed: Path, name: str = "Dataset950_Tiny") -> Path:
    """Put the example plan where the commands look for it."""
    target = preprocessed / name / "colipriPlans.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(PLANS, target)
    return target


def _volume(rng: np.random.Generator, effusion: bool) -> np.ndarray:
    """(z, y, x) int16 HU, 34 x 26 x 40 voxels of 8 mm."""
    z, y, x = _axes()
    volume = np.full(z.shape, -1000.0)
    volume[(x / 0.9) ** 2 + (y / 0.8) ** 2 < 1] = 40
    for side in (-0.42, 0.42):
        lung = ((x - side) / 0.3) ** 2 + (y / 0.55) ** 2 + (z / 0.8) ** 2 < 1
        volume[lung] = -850
    if effusion:
        volume[_effusion()] = 10
    return (volume + rng.normal(0, 20, volume.shape)).astype(np.int16)


def _effusion() -> np.ndarray:
    """(z, y, x) bool: the back of one lung."""
    z, y, x = _axes()
    return (((x - 0.42) / 0.3) ** 2 + (y / 0.55) ** 2 + (z / 0.8) ** 2 < 1) & (y > 0.1)


def _axes() -> list[np.ndarray]:
    ends = (np.linspace(-1, 1, length) for length in (34, 26, 40))
    return list(np.meshgrid(*ends, indexing="ij"))
