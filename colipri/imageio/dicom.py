"""A folder with one DICOM series as one volume, checked before it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from colipri.imageio.dicom_series import Series

# For single folders any modality may be asked for; archives are filtered by the converter.
_SCANS = ("CT", "MR", "PT", "NM", "")


def read_series(folder: Path) -> Any:
    """Read the only series of a folder as a SimpleITK image; rescale slope and intercept applied.

    Localisers, secondary captures, reports and derived series beside it do not count.

    Raises:
        ColipriError: no series, several series, missing, duplicate or undecodable slices.
    """
    from colipri.imageio.dicom_pixels import read_volume

    return read_volume(_only_series(folder))[0]


def _only_series(folder: Path) -> Series:
    from colipri.imageio.dicom_files import is_archive, read_file
    from colipri.imageio.dicom_headers import Instance
    from colipri.imageio.dicom_series import find_series

    instances: list[Instance] = []
    for file in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        found = [] if is_archive(file) else read_file(file)
        instances += [item for item in found if isinstance(item, Instance)]
    if not instances:
        raise ColipriError(f"{folder} holds no DICOM series (nor is it an image file)")
    series, left_out = find_series(instances, _SCANS)
    if len(series) > 1:
        listed = ", ".join(f"{len(s.instances)} slices of {s.uid}{s.part}" for s in series[:5])
        raise ColipriError(
            f"{folder} holds {len(series)} DICOM series ({listed}); keep one series per folder"
        )
    if not series:
        largest = max(left_out, key=lambda part: part.files)
        raise ColipriError(
            f"the DICOM files in {folder} make no volume ({largest.files} files): {largest.reason}"
        )
    return series[0]
