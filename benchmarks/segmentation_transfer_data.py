"""Data sets of the transfer experiment: nnU-Net's raw format, folds, and fractions of labels."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_json


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        name: DatasetXXX_Name.
        title: for tables.
        images, labels: folders of NIfTI files, images named CASE_0000.
        description: dataset.json.
        folds: of the cross-validation unless asked otherwise; all cases are validated once.
        pretraining_epochs: unless asked otherwise.
    """

    name: str
    title: str
    images: Path
    labels: Path
    description: dict[str, Any]
    folds: int
    pretraining_epochs: int

    @property
    def number(self) -> int:
        """XXX."""
        return int(self.name[len("Dataset") :].split("_")[0])


def find_sources(names: list[str], data: str) -> list[Source]:
    """The data sets by name, or by the folder of a raw data set of nnU-Net."""
    base = Path(data).absolute()
    known = {
        "hippocampus": Source(
            "Dataset601_Hippocampus",
            "hippocampus (MR)",
            base / "msd_hippocampus_subset" / "imagesTr",
            base / "msd_hippocampus_subset" / "labelsTr",
            _description("MRI", {"background": 0, "anterior": 1, "posterior": 2}),
            folds=2,
            pretraining_epochs=20,
        ),
        "tumour": Source(
            "Dataset602_SoftTissueTumour",
            "soft-tissue tumour (CT)",
            base / "sts_ct_gtv" / "images",
            base / "sts_ct_gtv" / "labels",
            _description("CT", {"background": 0, "tumour": 1}),
            folds=3,
            pretraining_epochs=16,
        ),
    }
    sources = [known[name] if name in known else _from_folder(Path(name)) for name in names]
    for source in sources:
        if not source.images.is_dir() or not source.labels.is_dir():
            sys.exit(f"there is no folder {source.images} or {source.labels}; see --data")
    return sources


def _description(channel: str, labels: dict[str, int]) -> dict[str, Any]:
    return {"channel_names": {"0": channel}, "labels": labels, "file_ending": ".nii.gz"}


def _from_folder(folder: Path) -> Source:
    if not (folder / "dataset.json").is_file():
        sys.exit(f"{folder} is neither hippocampus, tumour, nor a raw data set of nnU-Net")
    description = json.loads((folder / "dataset.json").read_text())
    name, folder = folder.resolve().name, folder.absolute()
    return Source(name, name, folder / "imagesTr", folder / "labelsTr", description, 5, 20)


def write_raw_dataset(source: Source, raw: Path) -> Path:
    """$nnUNet_raw/DatasetXXX_Name, of links; complete or not there."""
    target = raw / source.name
    if (target / "dataset.json").is_file():
        return target
    for name, folder in (("imagesTr", source.images), ("labelsTr", source.labels)):
        (target / name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*" + source.description["file_ending"])):
            link = target / name / file.name
            if not link.exists():
                link.symlink_to(file)
    cases = len(list((target / "labelsTr").iterdir()))
    content = {**source.description, "numTraining": cases}
    atomic_write_json(target / "dataset.json", content)
    return target


def write_splits(
    raw: Path, preprocessed: Path, fractions: list[float], num_folds: int, seed: int
) -> dict[tuple[float, int], int]:
    """splits_final.json: for each fold, nested random subsets of its training cases.

    The folds alone, with all labels, are written to folds.json. Fractions may be added later:
    entries that are there keep their place.

    Returns:
        (fraction, fold) -> the fold number that nnU-Net takes.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
    cases = sorted(file.name.removesuffix(ending) for file in (raw / "labelsTr").iterdir())
    if len(cases) < num_folds:
        sys.exit(f"{raw} has {len(cases)} cases, too few for {num_folds} folds")
    folds = [
        {side: [str(case) for case in fold[side]] for side in ("train", "val")}
        for fold in generate_crossval_split(cases, seed=seed, n_splits=num_folds)
    ]
    preprocessed.mkdir(parents=True, exist_ok=True)
    file = preprocessed / "folds.json"
    if file.is_file() and json.loads(file.read_text()) != folds:
        sys.exit(f"{file} is of other folds; choose another -o")
    atomic_write_json(file, folds)

    index = preprocessed / "fractions.json"  # [fraction, fold] in the order of the splits
    order = json.loads(index.read_text()) if index.is_file() else []
    order += [[f, n] for f in fractions for n in range(num_folds) if [f, n] not in order]
    splits = [
        {"train": _subset(folds[fold]["train"], fraction, seed + fold), "val": folds[fold]["val"]}
        for fraction, fold in order
    ]
    atomic_write_json(preprocessed / "splits_final.json", splits)
    atomic_write_json(index, order)
    return {(fraction, fold): number for number, (fraction, fold) in enumerate(order)}


def _subset(cases: list[str], fraction: float, seed: int) -> list[str]:
    """A larger fraction holds all cases of a smaller one; at least one."""
    shuffled = [str(case) for case in np.random.default_rng(seed).permutation(cases)]
    return shuffled[: max(1, round(len(cases) * fraction))]
