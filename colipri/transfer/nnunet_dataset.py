"""The nnU-Net side of a transfer, checked before anything is computed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.common.names import is_utf8, printable
from colipri.raw_dataset.labels import gap_in_labels, parse_labels

MINIMUM_VERSION = (2, 8)  # the first with external trainer folders and today's network signature
FOLDERS = {
    "nnUNet_raw": "your data sets in nnU-Net's format",
    "nnUNet_preprocessed": "plans and preprocessed cases",
    "nnUNet_results": "trained models",
}
TRAINER_VARIABLE = "nnUNet_extTrainer"
READABLE = (".nii", ".nii.gz")  # formats of NibabelIOWithReorient


@dataclass(frozen=True)
class SegmentationDataset:
    """A raw nnU-Net data set with labels.

    Attributes:
        name: Dataset004_Hippocampus.
        raw, preprocessed: its folders (the second may not exist yet).
        dataset_json: content of dataset.json.
        cases: identifier -> images (one per channel) and label.
    """

    name: str
    raw: Path
    preprocessed: Path
    dataset_json: dict[str, Any]
    cases: dict[str, tuple[list[Path], Path]]

    @property
    def number(self) -> int:
        """What nnU-Net's commands take."""
        return int(self.name[len("Dataset") :].split("_")[0])

    @property
    def channel_names(self) -> list[str]:
        """In order."""
        names = self.dataset_json["channel_names"]
        return [str(names[key]) for key in sorted(names, key=int)]

    @property
    def num_heads(self) -> int:
        """Outputs of the network: nnU-Net's label manager knows about regions and ignore labels."""
        from nnunetv2.utilities.label_handling.label_handling import LabelManager

        regions = self.dataset_json.get("regions_class_order")
        manager = LabelManager(self.dataset_json["labels"], regions_class_order=regions)
        return int(manager.num_segmentation_heads)


def require_nnunet() -> str:
    """Return the installed nnunetv2's version.

    Raises:
        ColipriError: not installed, or older than 2.8.
    """
    try:
        found = version("nnunetv2")
    except PackageNotFoundError as error:
        raise ColipriError(
            "nnunetv2 is not installed; install it with: pip install 'nnunetv2>=2.8'"
        ) from error
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if numbers < MINIMUM_VERSION:
        raise ColipriError(
            f"nnunetv2 {found} is too old for this; update it with: pip install -U 'nnunetv2>=2.8'"
        )
    return found


def nnunet_folder(variable: str) -> Path:
    """Return one of nnU-Net's three folders; results and preprocessed are created where missing.

    Raises:
        ColipriError: the environment variable is not set or does not name a folder.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ColipriError(
            f"the environment variable {variable} is not set: it names nnU-Net's folder for "
            f"{FOLDERS[variable]}; for example: export {variable}=/data/{variable}"
        )
    folder = Path(value)
    if variable == "nnUNet_raw" and not folder.is_dir():
        raise ColipriError(f"{variable} points at {folder}, which is not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ColipriError(
            f"{variable} points at {folder}, where no folder can be created: {error.strerror}"
        ) from error
    return folder


def check_trainer_variable() -> None:
    """nnUNet_extTrainer, if set, must name folders; nnU-Net's own message would come much later.

    Raises:
        ColipriError: one of them does not exist.
    """
    for folder in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep):
        if folder and not Path(folder).is_dir():
            raise ColipriError(
                f"{TRAINER_VARIABLE} names {folder}, which is not a folder; set it with: "
                f'export {TRAINER_VARIABLE}="$(colipri_nnunet_trainer_folder)"'
            )


def find_segmentation_dataset(id_or_name: str | int) -> SegmentationDataset:
    """Read and check a data set in $nnUNet_raw.

    Raises:
        ColipriError: not there, ambiguous, no labels, or a dataset.json that nnU-Net cannot use.
    """
    raw_base, preprocessed_base = nnunet_folder("nnUNet_raw"), nnunet_folder("nnUNet_preprocessed")
    nnunet_folder("nnUNet_results")
    name = _find_name(str(id_or_name), raw_base)
    raw = raw_base / name
    description = read_json(raw / "dataset.json")
    for key in ("channel_names", "labels", "file_ending"):
        if not isinstance(description, dict) or not description.get(key):
            hint = "; it has no labels to train a segmentation on" if key == "labels" else ""
            raise ColipriError(f"{raw / 'dataset.json'} lacks '{key}'{hint}")
    _check_description(description, raw / "dataset.json")
    _check_file_names(raw, description["file_ending"])
    cases = _cases(raw, description)
    return SegmentationDataset(name, raw, preprocessed_base / name, description, cases)


def _check_description(description: dict[str, Any], path: Path) -> None:
    """Check what nnU-Net would only stumble over in training, or with a message of its own.

    Raises:
        ColipriError: the file ending lacks its dot, or labels are not 0, 1, 2, ...
    """
    ending = description["file_ending"]
    if not str(ending).startswith("."):
        raise ColipriError(f"{path}: file_ending '{ending}' lacks its dot; write '.{ending}'")
    labels = parse_labels(description["labels"], str(path))
    if labels.get("background") != (0,):
        raise ColipriError(f'{path}: labels must hold "background": 0')
    gap = gap_in_labels(description["labels"], str(path))
    if gap:
        raise ColipriError(f"{path}: {gap}")


def _check_file_names(raw: Path, ending: str) -> None:
    """nnU-Net takes every file with the ending for an image, hidden or not.

    Raises:
        ColipriError: there are hidden ones, as macOS leaves them, or names that are not UTF-8.
    """
    for name in ("imagesTr", "labelsTr"):
        hidden = sorted(file.name for file in (raw / name).glob(f".*{ending}"))
        if hidden:
            raise ColipriError(
                f"{raw / name} holds {len(hidden)} hidden files that nnU-Net takes for images, "
                f"first {hidden[0]}; delete them: find {raw} -name '._*' -delete"
            )
        odd = [file.name for file in (raw / name).glob(f"*{ending}") if not is_utf8(file.name)]
        if odd:
            raise ColipriError(
                f"{raw / name}: the name {printable(odd[0])} is not UTF-8, which ends nnU-Net's "
                "processes; rename the file (convmv renames whole folders)"
            )


def _find_name(text: str, raw: Path) -> str:
    known = sorted(f.name for f in raw.iterdir() if re.match(r"^Dataset\d{3,}_", f.name))
    if text.isdigit():
        found = [name for name in known if int(name[7:].split("_")[0]) == int(text)]
    else:
        found = [name for name in known if name == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise ColipriError(f"several data sets in {raw} have the number {text}: {', '.join(found)}")
    listing = ", ".join(known[:20]) or "none"
    raise ColipriError(f"there is no data set {text} in nnUNet_raw ({raw}); it has: {listing}")


def _cases(raw: Path, description: dict[str, Any]) -> dict[str, tuple[list[Path], Path]]:
    cases = _listed_cases(raw, description)
    if not cases:
        raise ColipriError(
            f"{raw / 'imagesTr'} holds no images called CASE_0000{description['file_ending']}"
        )
    without = [name for name, (_, label) in cases.items() if not label.is_file()]
    if without:
        raise ColipriError(
            f"{raw}: {len(without)} of {len(cases)} training cases have no label in labelsTr, "
            f"first {without[0]}; a segmentation needs labels for all of imagesTr"
        )
    channels = len(description["channel_names"])
    for name, (images, _) in cases.items():
        if len(images) != channels:
            raise ColipriError(
                f"{raw}: case {name} has {len(images)} images, dataset.json names {channels} "
                "channels"
            )
    return cases


def _listed_cases(raw: Path, description: dict[str, Any]) -> dict[str, tuple[list[Path], Path]]:
    """As nnU-Net: dataset.json's own list where it has one, the folders otherwise."""
    if "dataset" in description:
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        listed = get_filenames_of_train_images_and_targets(str(raw), deepcopy(description))
        return {
            name: ([Path(image) for image in entry["images"]], Path(entry["label"]))
            for name, entry in sorted(listed.items())
        }
    if not (raw / "imagesTr").is_dir():
        raise ColipriError(f"{raw} has no folder imagesTr")
    ending = description["file_ending"]
    pattern = re.compile(r"(.+)_\d{4}" + re.escape(ending))
    images: dict[str, list[Path]] = {}
    for file in sorted((raw / "imagesTr").iterdir()):
        match = pattern.fullmatch(file.name)
        if match:
            images.setdefault(match.group(1), []).append(file)
    return {name: (files, raw / "labelsTr" / (name + ending)) for name, files in images.items()}


def oriented_axes(image: Path) -> tuple[int, int, int]:
    """Return, for each of the axes S, A, R, its axis in the array of the usual readers (reversed
    i, j, k).

    nnU-Net's fingerprint is made with the data set's usual reader, which keeps the axes of the
    files; the plan's reader permutes them.

    Raises:
        ColipriError: the header cannot be read, or the image is not three-dimensional.
    """
    try:
        header: Any = nibabel.load(image)
    except (ImageFileError, HeaderDataError, OSError, ValueError, KeyError) as error:
        raise ColipriError(f"{image} cannot be read as NIfTI: {error}") from error
    if len(header.shape) != 3:
        raise ColipriError(f"{image} has {len(header.shape)} dimensions; three are needed")
    directions = nibabel.io_orientation(header.affine)[:, 0]  # file axis -> R, A or S (0, 1, 2)
    if np.isnan(directions).any():
        raise ColipriError(f"{image}: its header has no usable orientation (a zero axis)")
    file_axis = np.argsort(directions)  # R, A, S -> file axis
    s, a, r = (int(2 - file_axis[world]) for world in (2, 1, 0))
    return s, a, r


def reorder(values: Sequence[float], axes: Sequence[int]) -> list[float]:
    """Return the numbers per axis in another order of axes."""
    return [float(values[axis]) for axis in axes]
