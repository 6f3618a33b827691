"""Faults that others have met in public; tests/known_faults_images.md says where."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_writing import expected, real_volume, save, slice_dataset, uid, write_series
from nifti_variants import AFFINE, INTERCEPT, PIXDIM, SLOPE, nifti, patch, voxels, write

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.pixels import read_series
from colipri.imageio.reading import read_image

SLICES = range(30, 42)


def _values(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(read_series(folder))


def _each(folder: Path, change: Callable[[Any, int], None]) -> None:
    """Write the scan; ``change`` gets each slice and its number."""
    for number, k in enumerate(SLICES):
        data = slice_dataset(k)
        change(data, number)
        save(data, folder / f"{number:03d}.dcm")


def _places(folder: Path, places: list[float]) -> None:
    for number, place in enumerate(places):
        data = slice_dataset(
            30 + number, SOPInstanceUID=uid(number), ImagePositionPatient=[0, 0, place]
        )
        save(data, folder / f"{number:03d}.dcm")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([*range(0, 18, 3), *range(200, 218, 3)], "missing"),
        ([*range(0, 18, 3), *range(23, 53, 5)], "missing|uneven"),
        ([0] * 6, "same place|one position|mixed|one place"),
        ([0, 0, 6, 9, 12, 15], "missing|mixed"),
        ([0, 3, 6, 9, 12, 11], "uneven|mixed|missing"),
    ],
    ids=["a hole", "two distances", "one position", "first twice, second gone", "one moved"],
)
def test_slices_that_are_no_volume(tmp_path: Path, places: list[float], message: str) -> None:
    _places(tmp_path, places)
    with pytest.raises(ColipriError, match=message):
        read_series(tmp_path)


def test_rounding_errors_of_floats_in_positions(tmp_path: Path) -> None:
    _places(tmp_path, [0.900002 * k if k % 2 else 0.9 * k for k in range(12)])
    assert read_series(tmp_path).GetSpacing()[2] == pytest.approx(0.9, abs=1e-5)


def test_tags_that_vary_within_one_scan(tmp_path: Path) -> None:
    """Tube current is modulated, and some scanners count acquisitions up within a scan."""

    def change(data: Any, number: int) -> None:
        data.Exposure, data.XRayTubeCurrent = 100 + number, 300 - number
        data.AcquisitionNumber = 1 + number // 6
        data.ContentTime = f"1200{number:02d}"

    _each(tmp_path, change)
    np.testing.assert_array_equal(_values(tmp_path), expected())


@pytest.mark.parametrize("thickness", [0, 1.5, 10, None])
@pytest.mark.parametrize("between", [None, -3.0, 1.0])
def test_the_slice_distance_is_that_of_the_positions(
    tmp_path: Path, thickness: float | None, between: float | None
) -> None:
    """Neither the thickness nor the stated distance, which may be negative."""

    def change(data: Any, number: int) -> None:
        data.SliceThickness = thickness
        if between is not None:
            data.SpacingBetweenSlices = between

    _each(tmp_path, change)
    image = read_series(tmp_path)
    assert image.GetSpacing() == pytest.approx((3, 3, 3))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected())


def test_pixel_spacing_is_rows_then_columns(tmp_path: Path) -> None:
    _each(tmp_path, lambda data, _: setattr(data, "PixelSpacing", [2.0, 0.5]))
    assert read_series(tmp_path).GetSpacing() == pytest.approx((0.5, 2.0, 3.0))


@pytest.mark.parametrize("excess", [2, 1000])
def test_bytes_after_the_pixels(tmp_path: Path, excess: int) -> None:
    def change(data: Any, _: int) -> None:
        data.PixelData = data.PixelData + bytes(excess)

    _each(tmp_path, change)
    np.testing.assert_array_equal(_values(tmp_path), expected())


def test_numbers_with_more_digits_than_allowed(tmp_path: Path) -> None:
    """A decimal string has at most 16 characters; many programs write all of a float."""

    def change(path: Path) -> None:
        data = pydicom.dcmread(path)
        tag = pydicom.tag.Tag("PixelSpacing")
        text = b"2.99999999999999999999\\3.00000000000000000001"
        data._dict[tag] = pydicom.dataelem.RawDataElement(
            tag, "DS", len(text) + len(text) % 2, text + b" " * (len(text) % 2), 0, False, True
        )
        data.save_as(path)

    for path in write_series(tmp_path):
        change(path)
    assert read_series(tmp_path).GetSpacing() == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("text", [b"3,0\\3,0 ", b"3.0,3.0 ", b"3.0 "])
def test_decimal_commas_and_wrong_separators(tmp_path: Path, text: bytes) -> None:
    for path in write_series(tmp_path):
        data = pydicom.dcmread(path)
        tag = pydicom.tag.Tag("PixelSpacing")
        data._dict[tag] = pydicom.dataelem.RawDataElement(
            tag, "DS", len(text), text, 0, False, True
        )
        data.save_as(path)
    with pytest.raises(ColipriError, match="pixel spacing") as problem:
        read_series(tmp_path)
    assert len(str(problem.value).splitlines()) == 1


def test_files_without_their_preamble(tmp_path: Path) -> None:
    for path in write_series(tmp_path):
        path.write_bytes(path.read_bytes()[128:])  # begins with DICM
    with pytest.raises(ColipriError) as problem:
        read_series(tmp_path)
    assert len(str(problem.value).splitlines()) == 1


def test_files_without_meta_information(tmp_path: Path) -> None:
    """Only the data set, as old archives keep it: implicit little endian."""
    for k in SLICES:
        data = slice_dataset(k)
        del data.file_meta
        data.save_as(tmp_path / f"{k}.dcm", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(_values(tmp_path), expected())


def test_signed_twelve_bits_without_sign_extension(tmp_path: Path) -> None:
    def change(data: Any, number: int) -> None:
        values = np.clip(real_volume()[SLICES[number]], -1024, 2047)
        data.PixelRepresentation, data.BitsStored, data.HighBit = 1, 12, 11
        data.RescaleIntercept = 0
        data.PixelData = (values.astype(np.int32) & 0xFFF).astype(np.uint16).tobytes()

    _each(tmp_path, change)
    np.testing.assert_array_equal(_values(tmp_path), np.minimum(expected(), 2047))


def test_several_frames_in_one_file_are_said(tmp_path: Path) -> None:
    data = slice_dataset(30, NumberOfFrames=12)
    data.PixelData = data.PixelData * 12
    save(data, tmp_path / "enhanced.dcm")
    with pytest.raises(ColipriError, match="frames"):
        read_series(tmp_path)


def test_a_tilted_gantry_brings_no_values_of_its_own(tmp_path: Path) -> None:
    """Beside the straightened slices lies air, and their edges are no mix with padding."""

    def change(data: Any, number: int) -> None:
        data.ImagePositionPatient = [-200.0, -150.0 + 0.8 * number, -210.0 + 2.9 * number]
        stored = np.full((data.Rows, data.Columns), 1064, np.uint16)  # 40 HU throughout
        data.PixelData = stored.tobytes()

    _each(tmp_path, change)
    values = _values(tmp_path)
    assert set(np.unique(values)) == {40}  # the minimum of the scan outside


# NIfTI


def test_five_axes_of_one_are_three(tmp_path: Path) -> None:
    data = voxels()[..., None, None]
    path = write(tmp_path / "a.nii.gz", nifti(data=data))
    np.testing.assert_array_equal(
        read_image(path).array, read_image(write(tmp_path / "b.nii.gz", nifti())).array
    )


def test_vectors_and_colours_are_refused(tmp_path: Path) -> None:
    vectors = np.zeros((9, 10, 11, 1, 3), np.float32)
    colours = np.zeros((9, 10, 11), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for number, data in enumerate((vectors, colours)):
        path = tmp_path / f"{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)
        with pytest.raises(ColipriError) as problem:
            read_image(path)
        assert len(str(problem.value).splitlines()) == 1 and str(path) in str(problem.value)


def test_the_smallest_int16_keeps_its_sign(tmp_path: Path) -> None:
    data = voxels()
    data[0, 0, 0], data[1, 0, 0] = -32768, 32767
    array = read_image(write(tmp_path / "a.nii.gz", nifti(data=data))).array
    assert (array.min(), array.max()) == (-32768, 32767)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_sign_of_the_third_axis(tmp_path: Path, sign: float) -> None:
    """pixdim[0] alone holds it for an image that has only a qform."""
    affine = AFFINE @ np.diag([1, 1, sign, 1])
    content = nifti(sform=None, qform=affine)
    image = read_image(write(tmp_path / "a.nii.gz", content))
    (index,) = np.argwhere(image.array.squeeze() == voxels()[1, 2, 3])
    np.testing.assert_allclose(image.affine @ [*index, 1], affine @ [1, 2, 3, 1], atol=1e-3)
    assert np.frombuffer(content[PIXDIM : PIXDIM + 4], "<f4")[0] == (
        1.0 if np.linalg.det(affine) > 0 else -1.0
    )


def test_a_mask_that_was_scaled(tmp_path: Path) -> None:
    """A slope just below 1 makes 0.9999 of a label: not rounded in silence, nor cut to 0."""
    data = (voxels() > 0).astype(np.int16)
    content = patch(nifti(data=data), SLOPE, "f", 0.9999)
    values = np.unique(read_image(write(tmp_path / "a.nii.gz", content)).array)
    np.testing.assert_allclose(values, [0, 0.9999], atol=1e-6)


def test_a_slope_of_zero_is_none(tmp_path: Path) -> None:
    content = patch(patch(nifti(), SLOPE, "f", 0.0), INTERCEPT, "f", -1024.0)
    np.testing.assert_array_equal(
        np.sort(read_image(write(tmp_path / "a.nii.gz", content)).array.ravel()),
        np.sort(voxels().ravel()),
    )


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_download_that_was_cut(tmp_path: Path, keep: float) -> None:
    packed = gzip.compress(bytes(nifti()), 1)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(ColipriError, match=r"truncated|cut|empty"):
        read_image(path)


def test_a_wrong_checksum(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(nifti()), 1))
    packed[-6] ^= 255
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed)
    with pytest.raises(ColipriError) as problem:
        read_image(path)
    assert str(path) in str(problem.value)


def test_nrrd_in_other_directions(tmp_path: Path) -> None:
    """left-anterior-superior is not left-posterior-superior with another name."""
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 9 10 11\n"
        "space directions: {directions}\nkinds: domain domain domain\nendian: little\n"
        "encoding: raw\nspace origin: {origin}\n\n"
    )
    stored = voxels().tobytes(order="F")
    images = []
    for space, directions, origin in (
        ("left-posterior-superior", "(2,0,0) (0,3,0) (0,0,4)", "(-16,-20,-30)"),
        ("left-anterior-superior", "(2,0,0) (0,-3,0) (0,0,4)", "(-16,20,-30)"),
        ("right-anterior-superior", "(-2,0,0) (0,-3,0) (0,0,4)", "(16,20,-30)"),
    ):
        path = tmp_path / f"{space}.nrrd"
        text = header.format(space=space, directions=directions, origin=origin)
        path.write_bytes(text.encode() + stored)
        try:
            images.append(read_image(path, "RAS"))
        except ColipriError as error:
            assert len(str(error).splitlines()) == 1
            assert space == "left-anterior-superior"  # refused is right, mirrored is not
    assert len(images) >= 2
    for image in images[1:]:
        np.testing.assert_allclose(image.affine, images[0].affine, atol=1e-5)
        np.testing.assert_array_equal(image.array, images[0].array)
