"""The image of a DICOM series in the data set: written, or referenced where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.images import NOTE_KEY, NOTE_LENGTH
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.dataset_conversion.dicom.identifiers import Identifiers
from colipri.imageio.dicom.files import SkippedFile
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.pixels import read_volume
from colipri.imageio.dicom.series import Series


def volume_maker(series: Series, with_paths: bool) -> Callable[[Sequence[Path]], sitk.Image]:
    """A function that reads the series and records in the image what was fixed.

    Args:
        series: what to read.
        with_paths: True if messages may name files (paths often contain patients' names).
    """
    return partial(_make, series, with_paths)


def in_place(series: Series, instances: Sequence[Instance]) -> Path | None:
    """The folder of the series, if reading that folder gives this series and nothing else."""
    folders = {instance.file.parent for instance in series.instances}
    if len(folders) != 1 or series.part or any(i.member for i in series.instances):
        return None
    folder = folders.pop()
    others = [i for i in instances if i.file.parent == folder and i.series != series.uid]
    return None if others or any(series.stack.shift) else folder


def noted(image: sitk.Image, notes: Sequence[str]) -> sitk.Image:
    """Write notes into the image's description."""
    if notes:
        text = "; ".join(notes).encode("ascii", "replace").decode()
        image.SetMetaData(NOTE_KEY, text[:NOTE_LENGTH])
    return image


def _make(series: Series, with_paths: bool, _: Sequence[Path]) -> sitk.Image:
    try:
        image, notes = read_volume(series)
    except ColipriError as error:
        raise ColipriError(_message(str(error), series, with_paths)) from None
    return noted(image, notes)


def _message(text: str, series: Series, with_paths: bool) -> str:
    """Put the reason first (reports count by it) and the slice behind it."""
    for number, instance in enumerate(series.instances, start=1):
        if text.startswith(instance.where):
            where = instance.where if with_paths else f"slice {number} of {len(series.instances)}"
            return f"{text.removeprefix(instance.where).lstrip(': ')} ({where})"
    return text


def case_of_left_out(item: SkippedFile, identifiers: Identifiers) -> SourceCase:
    """A row of the report for a file or series that did not become a case."""
    what = identifiers.name("file", item.what)
    row = f"{item.files} files, {what}" if item.files > 1 else what
    reason = item.reason if identifiers.keep else item.reason.replace(item.what, "the file")
    if item.first_file:
        reason += f" ({identifiers.name('file', item.first_file)})"
    if item.defect:
        return SourceCase(what, row, problem=reason)
    return SourceCase(what, row, skipped=reason)
