"""Data sets of the transfer experiment: nnU-Net's raw format, folds, and fractions of labels.

colipri's own raw format is nnU-Net's as well. Where its cases.csv names training and test cases,
these are the one fold: of the semi-synthetic chest set, anatomy that is in no training case.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.atomic import atomic_write_json

MOST_TRAINING, MOST_HELD_OUT = 80, 40  # studies of a split that cases.csv gives; minutes, not days


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
        held_out: images and labels of test cases, which cases.csv beside these folders names.
    """

    name: str
    title: str
    images: Path
    labels: Path
    description: dict[str, Any]
    folds: int
    pretraining_epochs: int
    held_out: tuple[Path, Path] | None = None

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
    images, labels = folder / "imagesTr", folder / "labelsTr"
    if not (folder / "cases.csv").is_file():
        return Source(name, name, images, labels, description, 5, 20)
    held_out = (folder / "imagesTs", folder / "labelsTs")
    return Source(name, name, images, labels, description, 1, 20, held_out)


def _given_split(source: Source) -> dict[str, list[str]]:
    """Training and test cases of cases.csv: the first of each study, evenly over the studies."""
    with (source.images.parent / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = {}
    for side, split, most in (("train", "train", MOST_TRAINING), ("val", "test", MOST_HELD_OUT)):
        first = {row["study"]: row["case"] for row in rows[::-1] if row["split"] == split}
        cases = sorted(first.values())
        if not cases:
            sys.exit(f"cases.csv of {source.name} names no {split} case")
        chosen[side] = cases[:: max(1, -(-len(cases) // most))]
    return chosen


def write_raw_dataset(source: Source, raw: Path, merge_labels: bool = False) -> Path:
    """$nnUNet_raw/DatasetXXX_Name, of links; complete or not there.

    Args:
        merge_labels: all labels become one, "foreground"; label images are then written.
    """
    target = raw / source.name
    content = {name: source.description[name] for name in _description("", {})}
    if merge_labels:
        content["labels"] = {"background": 0, "foreground": 1}
    if (target / "dataset.json").is_file():
        if json.loads((target / "dataset.json").read_text())["labels"] != content["labels"]:
            sys.exit(f"{target} was written with other labels (--merge); choose another -o")
        return target
    ending = source.description["file_ending"]
    pairs = [(source.images, source.labels), *([source.held_out] if source.held_out else [])]
    chosen = None
    if source.held_out:
        chosen = {case for cases in _given_split(source).values() for case in cases}
    for images, labels in pairs:
        for name, folder in (("imagesTr", images), ("labelsTr", labels)):
            (target / name).mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.glob("*" + ending)):
                case = file.name.removesuffix(ending)
                case = case[: -len("_0000")] if name == "imagesTr" else case
                link = target / name / file.name
                if link.exists() or (chosen is not None and case not in chosen):
                    continue
                if merge_labels and name == "labelsTr":
                    _write_merged(file, link)
                else:
                    link.symlink_to(file)
    cases = len(list((target / "labelsTr").iterdir()))
    atomic_write_json(target / "dataset.json", {**content, "numTraining": cases})
    return target


def _write_merged(source: Path, target: Path) -> None:
    import SimpleITK as sitk

    partial = target.with_name("partial_" + target.name)
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(source)) > 0, sitk.sitkUInt8), str(partial))
    partial.replace(target)


def write_splits(
    source: Source,
    raw: Path,
    preprocessed: Path,
    fractions: list[float],
    num_folds: int,
    seed: int,
) -> dict[tuple[float, int], int]:
    """splits_final.json: for each fold, nested random subsets of its training cases.

    The folds alone, with all labels, are written to folds.json. Fractions may be added later:
    entries that are there keep their place.

    Returns:
        (fraction, fold) -> the fold number that nnU-Net takes.
    """
    folds = [_given_split(source)] if source.held_out else _cross_validation(raw, num_folds, seed)
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


def _cross_validation(raw: Path, num_folds: int, seed: int) -> list[dict[str, list[str]]]:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
    cases = sorted(file.name.removesuffix(ending) for file in (raw / "labelsTr").iterdir())
    if len(cases) < num_folds:
        sys.exit(f"{raw} has {len(cases)} cases, too few for {num_folds} folds")
    return [
        {side: [str(case) for case in fold[side]] for side in ("train", "val")}
        for fold in generate_crossval_split(cases, seed=seed, n_splits=num_folds)
    ]


def _subset(cases: list[str], fraction: float, seed: int) -> list[str]:
    """A larger fraction holds all cases of a smaller one; at least one."""
    shuffled = [str(case) for case in np.random.default_rng(seed).permutation(cases)]
    return shuffled[: max(1, round(len(cases) * fraction))]
