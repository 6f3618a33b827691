"""Read images from files or DICOM folders into one orientation.

Every part of the framework reads through this file: the raw format, the converters, the inference
commands. NIfTI and Analyze are read by colipri.imageio.nifti, TIFF by tifffile, DICOM series by
colipri.imageio.dicom, everything else by ITK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.pixels import read_series
from colipri.imageio.errors import ImageError, NotThreeDimensionalError, ShearedGridError
from colipri.imageio.image import (
    DEFAULT_ORIENTATION,
    TOLERATED_SHEAR_DEGREES,
    ImageHeader,
    MedicalImage,
    reorient,
    shear_degrees,
)
from colipri.imageio.integrity import require_whole
from colipri.imageio.itk_files import arrays_of, read_itk, read_itk_header
from colipri.imageio.nifti import is_nifti, read_nifti
from colipri.imageio.nifti_header import read_nifti_header
from colipri.imageio.parts import PICTURE_ENDINGS
from colipri.imageio.tiff import is_tiff, read_tiff

APART_MM = 100.0  # slices of one scan are not that far apart


def read_image(
    files: Path | str | Sequence[Path | str], orientation: str = DEFAULT_ORIENTATION
) -> MedicalImage:
    """Read one image: a file, a folder with one DICOM series, or one file per channel.

    Supports all formats of nnU-Net's readers (NIfTI, NRRD, MetaImage, GIPL, TIFF with its spacing
    file) and everything else that SimpleITK reads.

    Args:
        files: one path, or one path per channel (equal geometry).
        orientation: where the array axes should point.

    Raises:
        TruncatedImageError: a file that ends early (ITK would fill a NIfTI file with zeros).
        ColipriError: unreadable, not three-dimensional, or channels that do not match.
    """
    paths = [Path(files)] if isinstance(files, (str, Path)) else [Path(file) for file in files]
    if not paths:
        raise ColipriError("no image file was given")
    channels, affines, headers = [], [], []
    for path in paths:
        array, header = read_channel(path)
        assert header.affine is not None
        channels.append(array)
        affines.append(header.affine)
        headers.append(header)
    _require_same_geometry(paths, channels, affines)
    stacked = channels[0][None] if len(channels) == 1 else np.stack(channels)
    array, affine, spacing = reorient(stacked, affines[0], orientation)
    _require_volume(paths[0], array.shape[1:], spacing)
    first = headers[0]
    properties: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "original_shape": list(first.shape),
        "original_spacing": list(first.spacing),
        "original_orientation": first.orientation,
        "dtype": first.dtype,
    }
    return MedicalImage(
        np.ascontiguousarray(array, dtype=np.float32), spacing, orientation, affine, properties
    )


def read_header(file: Path | str) -> ImageHeader:
    """Shape, spacing, orientation and type of a file, without its voxels (DICOM: of the series).

    Raises:
        ColipriError: the file is missing or not an image.
    """
    path = Path(file)
    _require_existing(path)
    if path.is_dir():
        return arrays_of(read_series(path), path)[1]
    if is_tiff(path):
        return read_tiff(path)[1]
    return read_nifti_header(path).image if is_nifti(path) else read_itk_header(path)


def read_stored(path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Read a file, or the only DICOM series of a folder, as it is stored.

    Returns:
        Array (i, j, k, ...) in file axis order, slope and intercept applied, of any dimension.

    Raises:
        TruncatedImageError: a file that ends early.
        ColipriError: unreadable.
    """
    _require_existing(path)
    if path.is_dir():
        return arrays_of(read_series(path), path)
    if is_nifti(path):
        return read_nifti(path)
    require_whole([path])
    return read_tiff(path) if is_tiff(path) else read_itk(path)


def read_channel(path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Read one 3D volume of one value per voxel, as it is stored.

    Returns:
        Array (i, j, k) in file axis order, and a header with three dimensions and an affine.

    Raises:
        ColipriError: as :func:`read_stored`, not three-dimensional, or on a sheared grid.
    """
    array, header = read_stored(path)
    if header.dimension == 4 and header.shape[3] == 1:
        array = array[:, :, :, 0]
        header = replace(header, shape=header.shape[:3], spacing=header.spacing[:3])
    if header.dimension != 3 or header.num_components != 1:
        raise NotThreeDimensionalError(
            f"{path} has {header.dimension} dimensions ({' x '.join(map(str, header.shape))}) and "
            f"{header.num_components} values per voxel; each channel file must hold one 3D volume"
        )
    assert header.affine is not None
    shear = shear_degrees(header.affine)
    if shear > TOLERATED_SHEAR_DEGREES:
        raise ShearedGridError(
            f"{path}: the axes in its header are {shear:.1f} degrees from perpendicular"
        )
    return array, header


def _require_volume(path: Path, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """A slice, or slices that lie apart as nnU-Net writes 2D images (1 x 1 x 999 mm), is no volume.

    Raises:
        NotThreeDimensionalError: naming size and spacing.
    """
    thickest, finest = max(spacing), min(spacing)
    if min(shape) > 1 and not (thickest > APART_MM and thickest > 20 * finest):
        return
    size = " x ".join(map(str, shape))
    millimetres = " x ".join(f"{step:.4g}" for step in spacing)
    what = "is a single slice" if min(shape) == 1 else "consists of slices that lie far apart"
    raise NotThreeDimensionalError(
        f"{path} {what} ({size} voxels of {millimetres} mm): it is two-dimensional, and scans must "
        "be three-dimensional here"
    )


def _require_existing(path: Path) -> None:
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long
        raise ImageError(f"image {path} cannot be reached: {error.strerror}") from error
    if not exists:
        raise ColipriError(f"image {path} does not exist")
    if path.suffix.lower() in PICTURE_ENDINGS and path.is_file():
        raise ImageError(f"{path} is a picture, a page or a film, not a scan")


def _require_same_geometry(
    paths: Sequence[Path], channels: Sequence[np.ndarray], affines: Sequence[np.ndarray]
) -> None:
    for path, channel, affine in zip(paths[1:], channels[1:], affines[1:], strict=True):
        if channel.shape != channels[0].shape:
            raise ColipriError(
                f"{path} has shape {channel.shape}, but {paths[0]} has {channels[0].shape}; "
                "channels must share one grid"
            )
        if not np.allclose(affine, affines[0], rtol=1e-3, atol=1e-2):
            raise ColipriError(
                f"{path} does not match {paths[0]} in space (spacing, origin or direction "
                "differ); channels must share one grid"
            )
