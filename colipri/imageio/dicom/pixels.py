"""Decode a DICOM series into one volume in HU (or the modality's own units), and check it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import SkippedFile, is_archive, plain_files, read_file
from colipri.imageio.dicom.geometry import axes
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.series import Series, find_series

# A single folder may hold any of these modalities; for archives the converter chooses.
_SCANS = ("CT", "MR", "PT", "NM", "")
_INT16 = (-32768, 32767)
_AIR_AS_STORED = np.array([-1200, -700])  # air and lung, if stored without an offset
_AIR_FRACTION = 0.05  # of the volume
# Slices of nothing but air, in JPEG 2000 and with the shortest header, are 900 times smaller.
_MOST_EXPANSION = 2000  # bytes of pixels over bytes of the files
_NOT_ASKED = 1 << 28  # bytes of pixels that are decoded whatever the files hold
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
          "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")  # fmt: skip


def read_series(folder: Path) -> sitk.Image:
    """Read the only series of a folder as a SimpleITK image; rescale slope and intercept applied.

    Localisers, secondary captures, reports and derived series beside it are ignored.

    Raises:
        ColipriError: no series, several series, or missing, duplicate or undecodable slices.
    """
    return read_volume(_only_series(folder))[0]


def read_volume(series: Series) -> tuple[sitk.Image, list[str]]:
    """Read a series as a SimpleITK image, rescale slope and intercept applied once.

    Pixels are decoded by GDCM (in SimpleITK), or by pydicom if GDCM cannot decode them. The middle
    slice is decoded by both, and they must agree.

    Returns:
        int16 if that is lossless, otherwise float32; and notes on what was found or corrected.

    Raises:
        ColipriError: pixels cannot be decoded (the transfer syntax is named), or are not HU.
    """
    instances = series.instances
    with plain_files(instances) as files:
        _require_plausible_size(instances, files)
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


def _only_series(folder: Path) -> Series:
    instances: list[Instance] = []
    unreadable: list[SkippedFile] = []
    for file in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        found = [] if is_archive(file) else read_file(file)
        instances += [item for item in found if isinstance(item, Instance)]
        unreadable += [item for item in found if isinstance(item, SkippedFile)]
    if not instances:
        raise ColipriError(f"{folder} holds no DICOM series (nor is it an image file)")
    series, skipped = find_series(instances, _SCANS, not_dicom=unreadable)
    if len(series) > 1:
        listed = ", ".join(f"{len(s.instances)} slices of {s.uid}{s.part}" for s in series[:5])
        raise ColipriError(
            f"{folder} holds {len(series)} DICOM series ({listed}); keep one series per folder"
        )
    if not series:
        largest = max(skipped, key=lambda part: (part.defect, part.files))
        raise ColipriError(
            f"the DICOM files in {folder} do not form a volume ({largest.files} files): "
            f"{largest.first_file + ': ' if largest.first_file else ''}{largest.reason}"
        )
    return series[0]


def _require_plausible_size(instances: Sequence[Instance], files: Sequence[Path]) -> None:
    """Refuse headers that state far more pixels than the files can hold, before decoding them.

    Where pixels are not compressed, reading the header has compared the bytes already.
    """
    stated = sum(2 * i.rows * i.columns * i.frames * i.samples for i in instances)
    stored = sum(file.stat().st_size for file in files)
    if stated > max(_NOT_ASKED, _MOST_EXPANSION * stored):
        first = instances[0]
        frames = f" and {first.frames} frames" if first.frames > 1 else ""
        raise ColipriError(
            f"{first.where}: its header states slices of {first.rows} x {first.columns} voxels"
            f"{frames}, {stated / 2**30:.1f} GiB in {len(instances)} files that hold "
            f"{stored / 2**20:.2f} MiB: the header is wrong"
        )


def _decode(instances: Sequence[Instance], files: Sequence[Path]) -> np.ndarray:
    """(slices, rows, columns), rescaled."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # places of slices are checked here
    one_scale = len({(i.slope, i.intercept) for i in instances}) == 1
    try:
        if one_scale:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames([str(file) for file in files])
            return sitk.GetArrayFromImage(reader.Execute())
        # The series reader uses the first slice's type for all, which would round the others.
        slices = [sitk.ReadImage(str(file), sitk.sitkFloat64) for file in files]
        return np.concatenate([sitk.GetArrayFromImage(image) for image in slices])
    except RuntimeError:
        return np.stack([_with_pydicom(i, file) for i, file in zip(instances, files, strict=True)])


def _with_pydicom(instance: Instance, file: Path) -> np.ndarray:
    """(rows, columns) of one slice, rescaled."""
    try:
        with warnings.catch_warnings():  # odd values in tags; those that matter are checked here
            warnings.simplefilter("ignore")
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
    """Two libraries must find the same values in the middle slice (lossless syntaxes only)."""
    middle = len(instances) // 2
    if volume.shape != (len(instances), instances[0].rows, instances[0].columns):
        raise ColipriError(
            f"{instances[0].where}: the series has the size {volume.shape}, but its headers state "
            f"{(len(instances), instances[0].rows, instances[0].columns)}"
        )
    if instances[middle].transfer_syntax in _LOSSY:
        return  # decoders may differ by one grey value
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
    """A CT contains air: without values far below water its numbers are not HU."""
    if instances[0].modality != "CT":
        return
    low, high = float(volume.min()), float(volume.max())
    no_rescale = any(instance.intercept is None for instance in instances)
    if low >= 0 and no_rescale:
        raise ColipriError(
            f"{instances[0].where}: the values are not HU: they range from {low:g} to {high:g}, "
            "and the header has no rescale intercept"
        )
    _check_sign(instances, volume)
    kinds = {i.rescale_type for i in instances} - {"", "HU"}
    if kinds:
        notes.append(f"rescale type {', '.join(sorted(kinds))} instead of HU")
    if low > -200:
        notes.append(f"no value is below {low:g} HU; a CT with air around the body has -1000")
    if len({i.slope for i in instances}) > 1 or len({i.intercept for i in instances}) > 1:
        notes.append("slices have different rescale slopes or intercepts; each was applied")


def _check_sign(instances: Sequence[Instance], volume: np.ndarray) -> None:
    """Negative values under a header that says "unsigned" come out near the highest number.

    Raises:
        ColipriError: as many voxels as air and lung have would be air with a sign.
    """
    first = instances[0]
    if not first.unsigned_bits or any(i.unsigned_bits != first.unsigned_bits for i in instances):
        return
    air, lung = 2**first.unsigned_bits + _AIR_AS_STORED
    lowest, highest = (value * first.slope + (first.intercept or 0.0) for value in (air, lung))
    wrapped = float(np.mean((volume >= lowest) & (volume <= highest)))
    if wrapped > _AIR_FRACTION:
        raise ColipriError(
            f"{first.where}: the values are signed, but PixelRepresentation 0 says unsigned: "
            f"{100 * wrapped:.0f} % of the voxels lie between {lowest:g} and {highest:g}; correct "
            "PixelRepresentation to 1 in the files"
        )


def _straighten(image: sitk.Image, shift: tuple[float, float]) -> sitk.Image:
    """Resample slices of a tilted gantry onto an orthogonal grid that contains all of them.

    Args:
        image: its direction assumes that the slices lie exactly above each other.
        shift: mm along rows and columns from one slice to the next.
    """
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
    # Output point -> input point: slice k is shifted by k * shift, so subtract that.
    shear = np.eye(3)
    shear[:2, 2] = -np.array(shift) / spacing[2]
    transform = sitk.AffineTransform((direction @ shear @ direction.T).ravel().tolist(), [0.0] * 3)
    transform.SetCenter(origin.tolist())
    minimum = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(image, grid, transform, sitk.sitkLinear, minimum, image.GetPixelID())
