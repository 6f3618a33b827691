"""Images of a source: read, then referenced, copied, linked or written as .nii.gz."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from colipri.common.atomic import TEMPORARY_MARK, atomic_path
from colipri.common.disk import device_of
from colipri.common.errors import ColipriError
from colipri.common.names import is_utf8, printable
from colipri.dataset_conversion.base.source_case import image_ending
from colipri.imageio.dicom.pixels import read_series
from colipri.imageio.integrity import require_whole, stated_geometry
from colipri.imageio.itk_files import itk_image
from colipri.imageio.parts import files_of, side_files
from colipri.imageio.reading import read_channel, read_stored

NOTE_KEY = "ITK_FileNotes"  # the NIfTI header's "descrip"
NOTE_LENGTH = 79  # characters that it has room for


def check_source(path: Path, what: str = "image") -> Path:
    """``path`` as an absolute path to something that can be read.

    Raises:
        ColipriError: missing, empty, unreadable, a loop of symbolic links, or "|" in its name.
    """
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  links stay as they are
    if "|" in str(path):
        raise ColipriError(f"the path of the {what} contains '|', rename it: {path}")
    try:
        status = path.stat()
    except FileNotFoundError:
        kind = "is a broken link" if path.is_symlink() else "does not exist"
        raise ColipriError(f"the {what} {kind}: {path}") from None
    except OSError as error:  # a loop of links, a name too long, no permission on the way
        raise ColipriError(f"the {what} cannot be reached: {path} ({error.strerror})") from error
    if not os.access(path, os.R_OK):
        raise ColipriError(f"the {what} cannot be read, check its permissions: {path}")
    if status.st_size == 0 or (path.is_dir() and not any(path.iterdir())):
        raise ColipriError(f"the {what} is empty: {path}")
    for part in side_files(path):
        if not part.is_file():
            raise ColipriError(f"a file that the {what} consists of does not exist: {part}")
    return path


def require_utf8(path: Path, what: str) -> Path:
    """``path``, if cases.csv, which is UTF-8, can hold it.

    Raises:
        ColipriError: its name has other bytes.
    """
    if not is_utf8(str(path)):
        raise ColipriError(
            f"the path of the {what} is not UTF-8; use --copy, --link or --compress, or rename it: "
            f"{printable(str(path))}"
        )
    return path


def place_image(source: Path, stem: Path, mode: str) -> Path:
    """Bring one channel's image into the data set; finished files are kept.

    Args:
        source: a checked path.
        stem: the target without file name ending, .../imagesTr/case_0000.
        mode: "reference", "copy", "link" or "compress".

    Returns:
        The path for cases.csv.
    """
    if mode == "reference":
        return require_utf8(source, "image")
    several = source.is_file() and bool(side_files(source))
    if mode == "link":
        if several:
            raise ColipriError(
                f"the image consists of several files, which a link would separate; use --compress "
                f"or no option: {source}"
            )
        return link(source, stem.with_name(stem.name + ending_of(source)))
    if mode == "copy" and source.is_file() and not several:
        return copy(source, stem.with_name(stem.name + ending_of(source)))
    # A DICOM series, or an image of several files, becomes one file.
    target = stem.with_name(stem.name + ".nii.gz")
    if not is_current(target, [source]):
        write_image(_channel_to_write(source), target)
    return target


def _channel_to_write(source: Path) -> sitk.Image:
    """One 3D volume with a known voxel size: a NIfTI file would state one in any case.

    Raises:
        ColipriError: it cannot be read, or its header does not say how large a voxel is.
    """
    if source.is_dir():
        return read_volume(source)
    try:
        image = itk_image(*read_channel(source))
        stated = stated_geometry(source)
    except (ColipriError, OSError) as error:
        raise _unreadable(source, error) from error
    if stated.has_spacing is False:
        raise ColipriError(f"the header does not say how large a voxel is: {source}")
    return image


def copy(source: Path, target: Path) -> Path:
    """Copy a file, unless a copy of the same size exists and is not older."""
    same = is_current(target, [source]) and target.stat().st_size == source.stat().st_size
    if not same:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def link(source: Path, target: Path) -> Path:
    """Make a symbolic link."""
    if not (target.is_symlink() and target.readlink() == source):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(TEMPORARY_MARK + target.name)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(source)
            os.replace(temporary, target)
        except OSError as error:
            raise ColipriError(f"cannot write {target}: {error.strerror}") from error
    return target


def is_current(target: Path, sources: Sequence[Path]) -> bool:
    """True if ``target`` exists and is not older than any file of what it is made from."""
    if not target.is_file():
        return False
    made = target.stat().st_mtime_ns
    files = [file for source in sources for file in (source, *files_of(source))]
    return all(file.stat().st_mtime_ns <= made for file in files)


def ending_of(path: Path) -> str:
    """ ".nii.gz", ".nrrd", ...; empty for a folder, and for names that are no image's."""
    return "" if path.is_dir() else image_ending(path.name)


def read_volume(source: Path) -> sitk.Image:
    """Read an image file of three or four dimensions, or the only DICOM series of a folder.

    Rescale slopes are applied.

    Raises:
        ColipriError: it cannot be read.
    """
    if source.is_dir():
        return read_series(source)
    try:
        array, header = read_stored(source)
    except ColipriError as error:
        raise _unreadable(source, error) from error
    if header.affine is None or header.num_components != 1 or array.ndim > 4:
        raise ColipriError(
            f"the image is not a 3D volume: {source} has the size {header.shape} and "
            f"{header.num_components} values per voxel"
        )
    return itk_image(array, header)


def _unreadable(source: Path, error: Exception) -> ColipriError:
    reason = str(error).strip().splitlines()[-1].strip()[:200]
    return ColipriError(f"the image cannot be read: {source} ({reason})")


def note_of(path: Path) -> str:
    """What was written into the image's description (so that a resumed run knows it as well)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetMetaData("descrip").strip() if reader.HasMetaDataKey("descrip") else ""


def write_image(image: sitk.Image, target: Path) -> None:
    """Write a 3D image as compressed NIfTI; whole numbers that fit become int16.

    Raises:
        ColipriError: not three-dimensional, or it cannot be written.
    """
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ColipriError(
            f"the image is not a 3D volume: size {image.GetSize()}, "
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel"
        )
    with atomic_path(target) as temporary:
        try:
            sitk.WriteImage(_small(image), str(temporary), useCompression=True)
            require_whole([temporary])  # the NIfTI writer does not report a full disk
        except (RuntimeError, ColipriError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ColipriError(
                f"cannot write {target}: {reason}; check free space: {device_of(target)}"
            ) from error


def _small(image: sitk.Image) -> sitk.Image:
    """As int16 where that is lossless: readers turn rescaled integers into floating point."""
    if image.GetPixelID() == sitk.sitkInt16:
        return image
    values = sitk.GetArrayViewFromImage(image)
    if not (np.isfinite(values).all() and abs(values).max() < 2**15):
        return image
    if not (values == np.rint(values)).all():
        return image
    small = sitk.Cast(image, sitk.sitkInt16)
    if image.HasMetaDataKey(NOTE_KEY):  # casting loses it
        small.SetMetaData(NOTE_KEY, image.GetMetaData(NOTE_KEY))
    return small
