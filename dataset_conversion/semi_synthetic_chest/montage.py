"""One picture of the set: every finding in real anatomy, as it looks and where it was inserted.

python -m colipri.dataset_conversion.semi_synthetic_chest.montage DATASET_FOLDER PICTURE.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from colipri.common.atomic import atomic_path, read_json
from colipri.common.errors import ColipriError

WINDOW_HU = (-1000, 400)


def save_montage(folder: Path, target: Path, split: str = "test") -> None:
    """Draw, for each finding, the slice with most of it: above as it is, below with its outline.

    Args:
        folder: a data set of this generator.
        target: PNG file.
        split: which cases are shown.

    Raises:
        ColipriError: the folder has no case of that split with some finding.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names: list[str] = read_json(folder / "dataset.json")["findings"]
    columns = len(names) // 2
    figure, axes = plt.subplots(4, columns, figsize=(2.4 * columns, 8.2))
    for number, name in enumerate(names):
        image, outline = _example(folder, names, number, split)
        row, column = divmod(number, columns)
        for half in (0, 1):
            axis = axes[2 * row + half, column]
            axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            axis.axis("off")
            if half:
                axis.contour(outline, [0.5], colors="tab:red", linewidths=0.8)
            else:
                axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.4)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=80)
    plt.close(figure)


def _example(
    folder: Path, names: list[str], number: int, split: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Slice and mask of the case that shows the finding best with the fewest others."""
    name = names[number]
    with open(folder / "cases.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split and row[name] == "1"]
    rows.sort(key=lambda row: sum(row[other] == "1" for other in names))
    best: tuple[float, NDArray[Any], NDArray[np.bool_]] | None = None
    suffix = "Ts" if split == "test" else "Tr"
    for row in rows[:6]:
        mask = _read(folder / f"labels{suffix}" / f"{row['case']}.nii.gz") == number + 1
        if not mask.any():
            continue
        level = int(mask.sum(axis=(1, 2)).argmax())
        area = float(mask[level].sum())
        if best is None or area > best[0]:
            volume = _read(folder / f"images{suffix}" / f"{row['case']}_0000.nii.gz")
            best = area, volume[level], mask[level]
    if best is None:
        raise ColipriError(f"{folder} has no {split} case that shows {name}; build a larger set")
    return best[1], best[2]


def _read(path: Path) -> NDArray[Any]:
    """A volume in LPS, axes z, y, x."""
    return np.asarray(sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    save_montage(options.folder, options.target)
