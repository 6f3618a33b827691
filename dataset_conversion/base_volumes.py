"""Reading a source's volume and writing it as compressed NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.imageio.integrity import require_whole

if TYPE_CHECKING:
    import SimpleITK as sitk


NOTE_KEY = "ITK_FileNotes"  # the NIfTI header's "descrip", 79 characters


def read_volume(source: Path) -> sitk.Image:
    """Read an image file or the only DICOM series of a folder; rescale slopes are applied.

    Raises:
        ColipriError: it cannot be read.
    """
    import SimpleITK as sitk

    if source.is_dir():
        from colipri.imageio.dicom.pixels import read_series

        return read_series(source)
    try:
        require_whole([source])  # the NIfTI reader takes half a file for a whole one
        return sitk.ReadImage(str(source))
    except (RuntimeError, ColipriError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        raise ColipriError(f"the image cannot be read: {source} ({reason})") from error


def note_of(path: Path) -> str:
    """What was written into the image's description (so that a resumed run knows it as well)."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetMetaData("descrip").strip() if reader.HasMetaDataKey("descrip") else ""


def write_image(image: sitk.Image, target: Path) -> None:
    """Write a 3D image as compressed NIfTI; whole numbers that fit become int16.

    Raises:
        ColipriError: not three-dimensional, or it cannot be written.
    """
    import SimpleITK as sitk

    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ColipriError(
            f"the image is no 3D volume: size {image.GetSize()}, "
            f"{image.GetNumberOfComponentsPerPixel()} values a voxel"
        )
    with atomic_path(target) as temporary:
        try:
            sitk.WriteImage(_small(image), str(temporary), useCompression=True)
            require_whole([temporary])  # a full disk is no error to the NIfTI writer
        except (RuntimeError, ColipriError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ColipriError(f"cannot write {target}: {reason}; check free space") from error


def _small(image: sitk.Image) -> sitk.Image:
    """int16 where that loses nothing: readers turn rescaled integers into floating point."""
    import numpy as np
    import SimpleITK as sitk

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
