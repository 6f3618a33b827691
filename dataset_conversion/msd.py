"""Tasks of the Medical Segmentation Decathlon, image-only."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base import SourceCase
from colipri.dataset_conversion.base_paths import image_stem, inside
from colipri.dataset_conversion.nnunet import NnUnet

if TYPE_CHECKING:
    import SimpleITK as sitk


class Decathlon(NnUnet):
    """Convert a task of the Medical Segmentation Decathlon, for pre-training on its images.

        colipri_convert_dataset msd -i /data/Task06_Lung -d 206 -n MSDLung

    The images that dataset.json lists are read ("test": test cases) and stay where they are; a
    four-dimensional image (tasks 1 and 5) becomes one file a channel. Labels are not used.

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
    from colipri.dataset_conversion.base_volumes import read_volume

    image = read_volume(files[0])
    size = image.GetSize()
    if len(size) != 4 or size[3] != number:
        raise ColipriError(f"the image does not have {number} channels: its size is {size}")
    return [image[:, :, :, channel] for channel in range(number)]
