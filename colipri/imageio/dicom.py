"""A folder with one DICOM series as one volume, checked before it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError

# Positions of slices are written with two or three decimals; more than this is a missing slice.
_SPACING_TOLERANCE_MM = 0.1


def read_series(folder: Path) -> Any:
    """Read the only series of a folder as a SimpleITK image; rescale slope and intercept applied.

    Raises:
        ColipriError: no series, several series, unevenly spaced or duplicate slices.
    """
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    series = list(reader.GetGDCMSeriesIDs(str(folder)))
    if not series:
        raise ColipriError(f"{folder} holds no DICOM series (nor is it an image file)")
    if len(series) > 1:
        listed = ", ".join(f"{len(_files(folder, uid))} slices of {uid}" for uid in series[:5])
        raise ColipriError(
            f"{folder} holds {len(series)} DICOM series ({listed}); keep one series per folder"
        )
    files = _files(folder, series[0])
    _check_slices(folder, files)
    reader.SetFileNames(files)
    try:
        return reader.Execute()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ColipriError(
            f"the DICOM series in {folder} cannot be read: {lines[-1][:200] if lines else error}"
        ) from error


def _files(folder: Path, series: str) -> list[str]:
    import SimpleITK as sitk

    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series))


def _check_slices(folder: Path, files: list[str]) -> None:
    """Slices must lie at even distances along their common normal."""
    import pydicom

    if len(files) < 2:
        raise ColipriError(f"{folder} holds a DICOM series of one slice; a volume is needed")
    tags = ["ImagePositionPatient", "ImageOrientationPatient"]
    positions, normals = [], []
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        if any(header.get(tag) is None for tag in tags):
            raise ColipriError(f"{file} has no position or orientation; it is no slice of a volume")
        row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        normals.append(np.cross(row, column))
        positions.append(np.array(header.ImagePositionPatient, dtype=float))
    if not np.allclose(normals, normals[0], atol=1e-3):
        raise ColipriError(f"the slices in {folder} have different orientations")
    along = np.sort(np.array(positions) @ normals[0])
    gaps = np.diff(along)
    if gaps.min() < _SPACING_TOLERANCE_MM:
        raise ColipriError(
            f"{folder} holds the same slice position twice (at {along[gaps.argmin()]:g} mm)"
        )
    if gaps.max() - gaps.min() > _SPACING_TOLERANCE_MM:
        raise ColipriError(
            f"the slices in {folder} are unevenly spaced ({gaps.min():g} to {gaps.max():g} mm): "
            f"a slice is missing near {along[gaps.argmax()]:g} mm"
        )
