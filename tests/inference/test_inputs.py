"""What is found where, with real image and DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from colipri.common.errors import ColipriError
from colipri.inference.inputs import find_images


def _write(path: Path, shape: tuple[int, int, int] = (4, 5, 6)) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros(shape, np.int16)), str(path))
    return path


def _write_series(folder: Path, mark: bool = True) -> Path:
    """Three slices of a CT series."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series = generate_uid()
    for number in range(3):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.SeriesInstanceUID, data.Modality = series, "CT"
        data.Rows, data.Columns, data.PixelSpacing = 4, 5, [1.0, 1.0]
        data.ImagePositionPatient = [0.0, 0.0, 2.0 * number]
        data.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelData = np.full((4, 5), number, np.int16).tobytes()
        data.save_as(folder / f"slice{number}", enforce_file_format=True)
    return folder


def test_single_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nrrd", "c_0000.mha"):
        (image,) = find_images(_write(tmp_path / name))
        assert image.name == name.split(".")[0].removesuffix("_0000")
        assert image.files == (tmp_path / name,)


def test_folder_of_images_and_series(tmp_path: Path) -> None:
    _write(tmp_path / "z.nii.gz")
    _write(tmp_path / "a_0000.nii.gz")
    _write_series(tmp_path / "m_series")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.nii.gz").write_text("x")
    (tmp_path / "empty").mkdir()
    images = find_images(tmp_path)
    assert [image.name for image in images] == ["a", "m_series", "z"]
    assert images[1].files == (tmp_path / "m_series",)


def test_series_folder(tmp_path: Path) -> None:
    (image,) = find_images(_write_series(tmp_path / "ct"))
    assert (image.name, image.files) == ("ct", (tmp_path / "ct",))
    with pytest.raises(ColipriError, match="give the folder of the DICOM series"):
        find_images(tmp_path / "ct" / "slice0")


def test_channels(tmp_path: Path) -> None:
    for name in ("x_0000", "x_0001", "y_0000", "y_0001"):
        _write(tmp_path / f"{name}.nii.gz")
    images = find_images(tmp_path, num_channels=2)
    assert [image.name for image in images] == ["x", "y"]
    assert [file.name for file in images[1].files] == ["y_0000.nii.gz", "y_0001.nii.gz"]
    assert find_images(tmp_path / "x_0001.nii.gz", num_channels=2) == images[:1]
    (tmp_path / "y_0001.nii.gz").unlink()
    with pytest.raises(ColipriError, match="y has 1 channel files, the model needs 2"):
        find_images(tmp_path, num_channels=2)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match="there is no image or folder"):
        find_images(tmp_path / "missing.nii.gz")
    with pytest.raises(ColipriError, match="holds no image"):
        find_images(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ColipriError, match="is not an image file"):
        find_images(tmp_path / "a.txt")
    (tmp_path / "a.txt").unlink()
    _write(tmp_path / "a.nii.gz")
    _write(tmp_path / "a.nrrd")
    with pytest.raises(ColipriError, match="several images called a"):
        find_images(tmp_path)
