"""Read images from files or DICOM folders into one orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.pixels import read_series
from colipri.imageio.image import (
    DEFAULT_ORIENTATION,
    ImageHeader,
    MedicalImage,
    orientation_of,
    reorient,
)
from colipri.imageio.integrity import require_whole

# In SimpleITK x grows to the left and y to posterior ("LPS"), in NIfTI to the right and to anterior
# ("RAS"); everything here is RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TIFF_ENDINGS = (".tif", ".tiff")
_NIFTI_ENDINGS = (".nii", ".nii.gz")


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
        array, affine, header = _read_channel(path)
        channels.append(array)
        affines.append(affine)
        headers.append(header)
    _require_same_geometry(paths, channels, affines)
    stacked = channels[0][None] if len(channels) == 1 else np.stack(channels)
    array, affine, spacing = reorient(stacked, affines[0], orientation)
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
        return _header_of(read_series(path), path)
    if path.name.lower().endswith(_TIFF_ENDINGS):
        return _read_tiff(path)[2]
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return _header(
        reader.GetSize(),
        reader.GetSpacing(),
        reader.GetOrigin(),
        reader.GetDirection(),
        sitk.GetPixelIDValueAsString(reader.GetPixelID()),
        reader.GetNumberOfComponents(),
        path,
    )


def _read_channel(path: Path) -> tuple[np.ndarray, np.ndarray, ImageHeader]:
    """Array (i, j, k) in file axis order, affine index -> RAS mm, header."""
    _require_existing(path)
    require_whole([path])
    if path.name.lower().endswith(_TIFF_ENDINGS):
        return _read_tiff(path)
    if path.is_dir():
        image = read_series(path)
    else:
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    header = _header_of(image, path)
    if header.dimension == 4 and header.shape[3] == 1:
        image = image[:, :, :, 0]
        header = _header_of(image, path)
    if header.dimension != 3 or header.num_components != 1:
        raise ColipriError(
            f"{path} has {header.dimension} dimensions of size {header.shape} and "
            f"{header.num_components} values per voxel; each channel file must hold one 3D volume"
        )
    assert header.affine is not None
    if path.name.lower().endswith(_NIFTI_ENDINGS) and "float" in header.dtype:
        return _nifti_voxels(path, header.shape[:3]), header.affine, header
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), header.affine, header


def _nifti_voxels(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Float voxels (i, j, k) as stored: ITK silently replaces NaN and infinity by 0."""

    image: Any = nibabel.load(path)
    voxels: np.ndarray = image.get_fdata(dtype=np.float32, caching="unchanged")
    return voxels.reshape(shape)


def _read_tiff(path: Path) -> tuple[np.ndarray, np.ndarray, ImageHeader]:
    """Read with nnU-Net's reader; TIFF has no orientation, so the axes are taken as stored."""

    try:
        array, properties = Tiff3DIO().read_images([str(path)])
    except (OSError, ValueError, AssertionError, KeyError, TypeError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    z, y, x = properties["spacing"]
    affine = np.diag([-x, -y, z, 1.0])
    volume = array[0].transpose(2, 1, 0)
    header = ImageHeader(
        volume.shape, (x, y, z), orientation_of(affine), str(array.dtype), 1, affine, False
    )
    return volume, affine, header


def _header_of(image: Any, path: Path) -> ImageHeader:
    return _header(
        image.GetSize(),
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
        image.GetPixelIDTypeAsString(),
        image.GetNumberOfComponentsPerPixel(),
        path,
    )


def _header(
    size: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    dtype: str,
    components: int,
    path: Path,
) -> ImageHeader:
    dimension = len(size)
    affine, orientation = None, ""
    if dimension in (3, 4):
        matrix = np.array(direction, dtype=float).reshape(dimension, dimension)[:3, :3]
        if abs(np.linalg.det(matrix)) < 1e-6:
            raise ColipriError(f"{path}: the direction cosines in its header are singular")
        lps = np.eye(4)
        lps[:3, :3] = matrix * np.array(spacing[:3])
        lps[:3, 3] = origin[:3]
        affine = _LPS_TO_RAS @ lps
        orientation = orientation_of(affine)
    return ImageHeader(
        tuple(int(n) for n in size),
        tuple(float(s) for s in spacing),
        orientation,
        dtype,
        components,
        affine,
    )


def _require_existing(path: Path) -> None:
    if not path.exists():
        raise ColipriError(f"image {path} does not exist")


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


def _unreadable(path: Path, error: Exception) -> ColipriError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1][:200] if lines else type(error).__name__
    return ColipriError(
        f"image {path} cannot be read (damaged, truncated or not an image): {reason}"
    )
