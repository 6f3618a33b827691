"""Reading images into one orientation, whatever the format, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from preprocessing.small_dataset import phantom, write_image

import colipri.dataset_conversion.semi_synthetic_chest as shipped
from colipri.common.errors import ColipriError
from colipri.imageio.image import orientation_of
from colipri.imageio.integrity import StatedGeometry, TruncatedImageError, stated_geometry
from colipri.imageio.reading import read_header, read_image

SCAN = Path(shipped.__file__).parent / "scans" / "cip_ct64.nii.gz"


def scan() -> Any:
    return SimpleITK.ReadImage(str(SCAN))


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR", "ILP", "ASR"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".gipl"])
def test_formats_and_stored_orders_are_one_image(
    tmp_path: Path, ending: str, orientation: str
) -> None:
    if ending == ".gipl" and orientation != "LPS":
        pytest.skip("GIPL stores no orientation")
    expected = read_image(SCAN)
    path = tmp_path / ("a" + ending)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(scan(), orientation), str(path))
    image = read_image(path)
    np.testing.assert_array_equal(image.array, expected.array)
    np.testing.assert_allclose(image.spacing, expected.spacing, rtol=1e-5)
    if ending != ".gipl":
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-3)
        assert image.properties["original_orientation"] == orientation
    assert image.orientation == "SAR" and orientation_of(image.affine) == "SAR"
    assert image.array.dtype == np.float32


def test_a_place_in_the_patient_stays_where_it_is(tmp_path: Path) -> None:
    """Independent of SimpleITK: nibabel's voxel and affine name the same place and value."""
    reference: Any = nibabel.load(SCAN)
    voxels, affine = np.asarray(reference.dataobj), reference.affine
    image = read_image(SCAN, "RAS")
    inverse = np.linalg.inv(image.affine)
    for index in ((3, 5, 7), (40, 30, 60), (63, 58, 78)):
        place = affine @ [*index, 1]
        i, j, k = np.rint(inverse @ place)[:3].astype(int)
        assert image.array[0, i, j, k] == voxels[index]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_values_that_are_no_numbers_survive_reading(
    tmp_path: Path, ending: str, value: float, dtype: type
) -> None:
    """ITK's NIfTI reader makes 0 of them: water."""
    array = phantom(0).astype(dtype)
    array[3, 4, 5] = value
    path = tmp_path / ("a" + ending)
    write_image(path, array)
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], array.astype(np.float32))


def test_scaled_nifti(tmp_path: Path) -> None:
    """Slope and intercept of the header are applied, with integers stored."""
    stored = (phantom(0).astype(np.int32) + 1024).astype(np.int16)
    nifti = nibabel.Nifti1Image(stored, np.diag([4.0, 5, 6, 1]))
    nifti.header.set_slope_inter(1, -1024)
    nibabel.save(nifti, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz", "RAS")
    np.testing.assert_array_equal(image.array[0], phantom(0))
    nifti.header.set_slope_inter(0.5, -512)
    nibabel.save(nifti, tmp_path / "b.nii.gz")
    image = read_image(tmp_path / "b.nii.gz", "RAS")
    np.testing.assert_allclose(image.array[0], phantom(0) / 2, atol=1e-3)


def test_tiff_with_its_spacing_file(tmp_path: Path) -> None:
    import tifffile

    array = phantom(0)
    path = tmp_path / "a_0000.tif"
    tifffile.imwrite(path, array)
    assert stated_geometry(path) == StatedGeometry(False, False)  # nnU-Net's reader takes 1 mm
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [6.0, 5.0, 4.0]}))
    image = read_image(path)
    assert image.spacing == (6.0, 5.0, 4.0)
    assert stated_geometry(path) == StatedGeometry(True, False)
    assert not read_header(path).has_orientation
    # rows are taken to run from front to back and columns from right to left, as in DICOM
    np.testing.assert_array_equal(image.array[0], array[:, ::-1, ::-1])
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ColipriError, match=r"a_0000\.tif cannot be read"):
        read_image(path)


def test_channels(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nrrd", phantom(0))
    write_image(tmp_path / "b.nrrd", phantom(1))
    image = read_image([tmp_path / "a.nrrd", tmp_path / "b.nrrd"])
    np.testing.assert_array_equal(image.array, np.stack([phantom(0), phantom(1)]))
    write_image(tmp_path / "b.nrrd", phantom(1), (6.0, 5.0, 4.5))
    with pytest.raises(ColipriError, match=r"b\.nrrd does not match .*a\.nrrd"):
        read_image([tmp_path / "a.nrrd", tmp_path / "b.nrrd"])
    write_image(tmp_path / "b.nrrd", phantom(1)[1:])
    with pytest.raises(ColipriError, match=r"b\.nrrd has shape"):
        read_image([tmp_path / "a.nrrd", tmp_path / "b.nrrd"])


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match="does not exist"):
        read_image(tmp_path / "none.nii.gz")
    (tmp_path / "text.nrrd").write_text("no image")
    with pytest.raises(ColipriError, match=r"text\.nrrd cannot be read"):
        read_image(tmp_path / "text.nrrd")
    SimpleITK.WriteImage(scan()[:, :, 5], str(tmp_path / "flat.nii.gz"))
    with pytest.raises(ColipriError, match=r"flat\.nii\.gz has 2 dimensions"):
        read_image(tmp_path / "flat.nii.gz")
    series = SimpleITK.JoinSeries([scan(), scan()])
    SimpleITK.WriteImage(series, str(tmp_path / "two.nii.gz"))
    with pytest.raises(ColipriError, match=r"two\.nii\.gz has 4 dimensions"):
        read_image(tmp_path / "two.nii.gz")
    with pytest.raises(ColipriError, match="no image file was given"):
        read_image([])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated_files_are_refused_wherever_they_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / ("a" + ending)
    SimpleITK.WriteImage(scan(), str(path), useCompression=ending != ".nii")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(ColipriError) as error:
        read_image(path)
    assert isinstance(error.value, TruncatedImageError) == (".nii" in ending)
    assert len(str(error.value).splitlines()) == 1
