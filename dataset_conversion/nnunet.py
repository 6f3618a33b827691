"""Data sets in nnU-Net's raw format and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase, image_stem, inside

if TYPE_CHECKING:
    import SimpleITK as sitk

_CHANNEL = re.compile(r"(.+)_(\d{4})")


class NnUnet(Converter):
    """Convert a raw data set of nnU-Net (version 2), for pre-training on its images.

        colipri_convert_dataset nnunet -i $nnUNet_raw/Dataset003_Liver -d 203 -n Liver

    imagesTr and imagesTs (test cases) are read, or what "dataset" in dataset.json names; images
    stay where they are. Every case counts as one patient; labels are not used.

    Licence and access terms are those of the data set ("licence" in its dataset.json is kept).
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.folder: Path = options.i.absolute()
        self.source = read_description(self.folder)
        self.channel_names = channel_names(self.source, self.folder)
        self.licence = str(self.source.get("licence") or self.source.get("license") or self.licence)
        self.reference = str(self.source.get("reference", ""))

    def cases(self) -> Iterator[SourceCase]:
        """Cases by name; files of other kinds are listed as skipped."""
        if isinstance(self.source.get("dataset"), dict):
            for name, entry in sorted(self.source["dataset"].items()):
                yield self._named_case(name, entry)
            return
        ending = self.source.get("file_ending")
        if not isinstance(ending, str):
            raise ColipriError(f"{self.folder / 'dataset.json'} has no file_ending (nnU-Net v2)")
        for subfolder, split in (("imagesTr", ""), ("imagesTs", "test")):
            yield from self._folder_cases(self.folder / subfolder, ending, split)

    def _named_case(self, name: str, entry: Any) -> SourceCase:
        where = f"dataset.json, dataset, {name}"
        try:
            images = [inside(self.folder, str(image), "images") for image in entry["images"]]
        except (KeyError, TypeError):
            return SourceCase(name, where, problem="the entry has no list of images")
        except ColipriError as error:
            return SourceCase(name, where, problem=str(error))
        return SourceCase(name, where, images=images)

    def _folder_cases(self, folder: Path, ending: str, split: str) -> Iterator[SourceCase]:
        if not folder.is_dir():
            return
        channels: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            match = _CHANNEL.fullmatch(path.name.removesuffix(ending))
            if not path.name.endswith(ending) or match is None:
                reason = f"not an image named <case>_0000{ending}"
                yield SourceCase(path.name, f"{folder.name}/{path.name}", skipped=reason)
                continue
            channels.setdefault(match[1], []).append(path)
        for name, images in channels.items():
            where = f"{folder.name}/{name}"
            expected = [f"{name}_{number:04d}{ending}" for number in range(len(self.channel_names))]
            if [image.name for image in images] != expected:
                found = ", ".join(image.name for image in images)
                yield SourceCase(name, where, problem=f"channels are missing: {found}")
            else:
                yield SourceCase(name, where, split=split, images=images)


def read_description(folder: Path) -> dict[str, Any]:
    """dataset.json of ``folder``.

    Raises:
        ColipriError: there is none.
    """
    content = read_json(folder / "dataset.json")
    if not isinstance(content, dict):
        raise ColipriError(f"{folder / 'dataset.json'} is not a JSON object")
    return content


def channel_names(source: dict[str, Any], folder: Path) -> dict[str, str]:
    """{"0": "CT"}, from "channel_names" or the older "modality".

    Raises:
        ColipriError: neither is there, or they are not numbered.
    """
    names = source.get("channel_names") or source.get("modality")
    if not isinstance(names, dict) or not names:
        raise ColipriError(f"{folder / 'dataset.json'} has neither channel_names nor modality")
    if sorted(names) != [str(number) for number in range(len(names))]:
        raise ColipriError(f"{folder / 'dataset.json'}: channels must be numbered '0', '1', ...")
    return {str(number): str(names[str(number)]) for number in range(len(names))}


class Decathlon(NnUnet):
    """Convert a task of the Medical Segmentation Decathlon, for pre-training on its images.

        colipri_convert_dataset msd -i /data/Task06_Lung -d 206 -n MSDLung

    The images that dataset.json lists are read ("test": test cases) and stay where they are; a
    four-dimensional image (tasks 1 and 5) becomes one file per channel. Labels are not used.

    Source: http://medicaldecathlon.com, free to download. Licence: CC BY-SA 4.0. Cite
    https://doi.org/10.1038/s41467-022-30695-9.
    """

    reference = "https://doi.org/10.1038/s41467-022-30695-9"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.reference = Decathlon.reference
        if not isinstance(self.source.get("training"), list):
            raise ColipriError(f"{self.folder / 'dataset.json'} has no list 'training' (MSD has)")

    def cases(self) -> Iterator[SourceCase]:
        """Training cases, then test cases."""
        for entry in self.source["training"]:
            yield self._listed_case(entry.get("image") if isinstance(entry, dict) else entry, "")
        for entry in self.source.get("test", []):
            yield self._listed_case(
                entry.get("image") if isinstance(entry, dict) else entry, "test"
            )

    def _listed_case(self, name: Any, split: str) -> SourceCase:
        where = f"dataset.json, {name}"
        try:
            path = inside(self.folder, str(name or ""), "image")
        except ColipriError as error:
            return SourceCase(str(name), where, problem=str(error))
        number = len(self.channel_names)
        make = partial(split_channels, number=number) if number > 1 else None
        return SourceCase(image_stem(path), where, split=split, images=[path], make=make)


def split_channels(files: Sequence[Path], number: int) -> list[sitk.Image]:
    """The 3D images in a 4D one.

    Raises:
        ColipriError: there are not ``number``.
    """
    from colipri.dataset_conversion.base.images import read_volume

    image = read_volume(files[0])
    size = image.GetSize()
    if len(size) != 4 or size[3] != number:
        raise ColipriError(f"the image does not have {number} channels: its size is {size}")
    return [image[:, :, :, channel] for channel in range(number)]
