"""Decode a DICOM series into one volume in HU (or the modality's own units), and check it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.dicom_files import plain_files
from colipri.imageio.dicom_geometry import axes
from colipri.imageio.dicom_headers import Instance

if TYPE_CHECKING:
    import SimpleITK as sitk

    from colipri.imageio.dicom_series import Series

_INT16 = (-32768, 32767)
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
          "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")  # fmt: skip


def read_volume(series: Series) -> tuple[sitk.Image, list[str]]:
    """Read a series as a SimpleITK image, rescale slope and intercept applied once.

    Pixels are decoded by GDCM (in SimpleITK), or by pydicom where GDCM cannot; the slice in the
    middle is decoded by both, and they must agree.

    Returns:
        int16 where that loses nothing, else float32; and notes on what was found or mended.

    Raises:
        ColipriError: pixels that cannot be decoded (the transfer syntax is named), or are no HU.
    """
    import SimpleITK as sitk

    instances = series.instances
    with plain_files(instances) as files:
        volume = _decode(instances, files)
        _compare_with_pydicom(instances, files, volume)
    notes = list(series.notes)
    _check_hu(instances, volume, notes)
    rounded = np.rint(volume)
    if np.array_equal(rounded, volume) and volume.min() >= _INT16[0] and volume.max() <= _INT16[1]:
        volume = rounded.astype(np.int16)
    else:
        volume = volume.astype(np.float32)
    image = sitk.GetImageFromArray(volume)
    first = instances[0]
    between_rows, between_columns = first.spacing
    image.SetSpacing((between_columns, between_rows, series.stack.step))
    image.SetOrigin(first.position)
    image.SetDirection(axes(first).T.ravel().tolist())
    if any(series.stack.shift):
        image = _straighten(image, series.stack.shift)
    return image, notes


def same_pixels(instances: Sequence[Instance]) -> bool:
    """Whether slices hold the same stored values (unreadable ones do not)."""
    import pydicom

    if len({(instance.slope, instance.intercept) for instance in instances}) > 1:
        return False
    with plain_files(instances) as files:
        try:
            contents = [pydicom.dcmread(file, force=True).PixelData for file in files]
        except (OSError, AttributeError, EOFError, ValueError):
            return False
    return all(content == contents[0] for content in contents[1:])


def _decode(instances: Sequence[Instance], files: Sequence[Path]) -> np.ndarray:
    """(slices, rows, columns), rescaled."""
    import SimpleITK as sitk

    one_scale = len({(i.slope, i.intercept) for i in instances}) == 1
    try:
        if one_scale:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames([str(file) for file in files])
            return sitk.GetArrayFromImage(reader.Execute())
        # The series reader takes the type of the first slice for all, which would round the others.
        slices = [sitk.ReadImage(str(file), sitk.sitkFloat64) for file in files]
        return np.concatenate([sitk.GetArrayFromImage(image) for image in slices])
    except RuntimeError:
        return np.stack([_with_pydicom(i, file) for i, file in zip(instances, files, strict=True)])


def _with_pydicom(instance: Instance, file: Path) -> np.ndarray:
    """(rows, columns) of one slice, rescaled."""
    import pydicom

    try:
        stored = pydicom.dcmread(file, force=True).pixel_array
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        syntax = pydicom.uid.UID(instance.transfer_syntax)
        if "1.2.840.10008.1.2.4" in syntax or "1.2.840.10008.1.2.5" in syntax:
            raise ColipriError(
                f"{instance.where}: pixels compressed as {syntax.name} cannot be decoded here: "
                "decompress them (gdcmconv -w, dcmdjpeg), or install pydicom's plugins "
                "(pylibjpeg, pylibjpeg-openjpeg, pylibjpeg-libjpeg)"
            ) from error
        raise ColipriError(
            f"{instance.where}: its pixels cannot be read: a truncated file? "
            f"{lines[0][:200] if lines else type(error).__name__}"
        ) from error
    return stored * instance.slope + (instance.intercept or 0.0)


def _compare_with_pydicom(
    instances: Sequence[Instance], files: Sequence[Path], volume: np.ndarray
) -> None:
    """Two libraries must find the same values in the slice in the middle (lossless ones only)."""
    middle = len(instances) // 2
    if volume.shape != (len(instances), instances[0].rows, instances[0].columns):
        raise ColipriError(
            f"{instances[0].where}: the series has another size than its headers say: "
            f"{volume.shape}, not {(len(instances), instances[0].rows, instances[0].columns)}"
        )
    if instances[middle].transfer_syntax in _LOSSY:
        return  # decoders may differ by a grey value
    try:
        expected = _with_pydicom(instances[middle], files[middle])
    except ColipriError:
        return  # only GDCM can decode it
    off = float(np.abs(expected - volume[middle]).max())
    if off > 0.5 * abs(instances[middle].slope):
        raise ColipriError(
            f"{instances[middle].where}: SimpleITK and pydicom disagree on its values: by {off:g}, "
            "its rescale tags or pixel format are inconsistent"
        )


def _check_hu(instances: Sequence[Instance], volume: np.ndarray, notes: list[str]) -> None:
    """A CT holds air: without values far below water its numbers are no HU."""
    if instances[0].modality != "CT":
        return
    low, high = float(volume.min()), float(volume.max())
    no_rescale = any(instance.intercept is None for instance in instances)
    if low >= 0 and no_rescale:
        raise ColipriError(
            f"{instances[0].where}: the values are no HU: they go from {low:g} to {high:g}, and no "
            "rescale intercept is given"
        )
    kinds = {i.rescale_type for i in instances} - {"", "HU"}
    if kinds:
        notes.append(f"rescale type {', '.join(sorted(kinds))} instead of HU")
    if low > -200:
        notes.append(f"no value is below {low:g} HU; a CT with air around the body has -1000")
    if len({i.slope for i in instances}) > 1 or len({i.intercept for i in instances}) > 1:
        notes.append("slices have different rescale slopes or intercepts; each was applied")


def _straighten(image: sitk.Image, shift: tuple[float, float]) -> sitk.Image:
    """Resample slices of a tilted gantry onto a right-angled grid that holds all of them.

    Args:
        image: with a direction as if the slices lay exactly above each other.
        shift: mm along rows and columns from one slice to the next.
    """
    import SimpleITK as sitk

    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    whole = np.array(shift) * (size[2] - 1)  # of the last slice against the first
    grow = np.ceil(np.abs(whole) / spacing[:2]).astype(int)
    start = np.array([*np.minimum(whole, 0.0), 0.0])
    grid_size = size + np.array([*grow, 0])
    grid = sitk.Image(grid_size.tolist(), image.GetPixelID())
    grid.SetSpacing(image.GetSpacing())
    grid.SetDirection(image.GetDirection())
    origin = np.array(image.GetOrigin())
    grid.SetOrigin((origin + direction @ start).tolist())
    # Output point -> input point: slice k lies shifted by k * shift, so take that away.
    shear = np.eye(3)
    shear[:2, 2] = -np.array(shift) / spacing[2]
    transform = sitk.AffineTransform((direction @ shear @ direction.T).ravel().tolist(), [0.0] * 3)
    transform.SetCenter(origin.tolist())
    minimum = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(image, grid, transform, sitk.sitkLinear, minimum, image.GetPixelID())
