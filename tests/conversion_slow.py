"""A converter that is slow enough to be interrupted; found by its dotted name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase

if TYPE_CHECKING:
    import SimpleITK as sitk


def make_slowly(files: Sequence[Path]) -> sitk.Image:
    """The file's image, in HU above 1000."""
    import SimpleITK as sitk

    time.sleep(0.2)
    return sitk.ReadImage(str(files[0])) + 1000


class Slow(Converter):
    """Every scan in a folder, made again."""

    def cases(self) -> Iterator[SourceCase]:
        for path in sorted(self.options.i.glob("*.nii.gz")):
            yield SourceCase(path.name, images=[path], make=make_slowly, report=f"of {path.name}")
