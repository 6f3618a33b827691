"""One reader for NIfTI: right values and geometry whatever the header, or a clear refusal."""

from __future__ import annotations

import math
import resource
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nifti_variants import (
    AFFINE,
    BITPIX,
    DATATYPE,
    DIM,
    INTERCEPT,
    MAGIC,
    PIXDIM,
    SLOPE,
    SPACING,
    UNITS,
    VOX_OFFSET,
    nifti,
    patch,
    voxels,
    write,
)

from colipri.common.errors import ColipriError
from colipri.imageio.errors import (
    ContradictoryHeaderError,
    ImageError,
    ShearedGridError,
    TruncatedImageError,
)
from colipri.imageio.integrity import stated_geometry
from colipri.imageio.nnunet_differences import nnunet_differences, twin_of
from colipri.imageio.reading import read_header, read_image, read_stored

NAN, INFINITY = float("nan"), float("inf")


def _negative(pixdim: tuple[float, float, float]) -> bytes:
    return patch(nifti(), PIXDIM + 4, "3f", *pixdim)


def _sheared(millimetres: float) -> bytes:
    affine = AFFINE.copy()
    affine[0, 1] = millimetres
    return nifti(affine, None)


# What must be read as the plain volume, and a part of what nnU-Net's readers do otherwise.
SAME = {
    "plain": (nifti(), ""),
    "sform alone": (nifti(qform=None), ""),
    "qform alone": (nifti(sform=None), ""),
    "slope 0": (patch(nifti(), SLOPE, "2f", 0.0, -1024.0), "ITK adds the intercept -1024"),
    "slope NaN": (patch(nifti(), SLOPE, "2f", NAN, NAN), ""),
    "slope NaN, intercept": (patch(nifti(), SLOPE, "2f", NAN, 5.0), "ITK adds the intercept 5"),
    "negative pixdim": (_negative((-2, -3, 4)), "ITK takes the axes to point to RAS"),
    "sheared a little": (_sheared(0.01), "not exactly perpendicular, which ITK refuses"),
    "unit unknown": (patch(nifti(), UNITS, "B", 0), ""),
    "pixdim 0 beside an sform": (patch(nifti(), PIXDIM + 4, "3f", 0, 0, 0), "spacing 1 x 1 x 1"),
    "voxels after a gap": (
        bytes(patch(nifti(), VOX_OFFSET, "f", 368.0)[:352]) + b"\0" * 16 + bytes(nifti()[352:]),
        "",
    ),
    "a fourth axis of length 1": (nifti(data=voxels()[..., None]), ""),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", SAME)
def test_one_volume_under_many_headers(tmp_path: Path, name: str, ending: str) -> None:
    content, difference = SAME[name]
    path = write(tmp_path / f"a{ending}", content)
    array, header = read_stored(path)
    np.testing.assert_array_equal(array, voxels())
    assert header.orientation == "LPS" and header.affine is not None
    np.testing.assert_allclose(header.spacing, SPACING, rtol=1e-4)
    np.testing.assert_allclose(header.affine, AFFINE, atol=0.011)
    found = "; ".join(nnunet_differences(path))
    assert difference in found if difference else found == ""


@pytest.mark.parametrize("name", SAME)
def test_rewritten_files_are_the_same_for_every_reader(tmp_path: Path, name: str) -> None:
    """What --compress writes is read alike by us, by nibabel, and by nnU-Net's readers."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    from colipri.dataset_conversion.base.images import place_image

    if name == "pixdim 0 beside an sform":
        pytest.skip("refused: the header says two things")
    source = write(tmp_path / "source" / "a.nii.gz", SAME[name][0])
    target = place_image(source, tmp_path / "imagesTr" / "a_0000", "compress")
    assert nnunet_differences(target) == []
    one, other = read_image(source, "RAS"), read_image(target, "RAS")
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine, atol=0.05)
    image: Any = nibabel.load(target)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels())
    itk, properties = SimpleITKIO().read_images([str(target)])
    np.testing.assert_array_equal(itk[0], voxels().transpose())
    np.testing.assert_allclose(properties["spacing"], SPACING[::-1], rtol=1e-4)
    reoriented, _ = NibabelIOWithReorient().read_images([str(target)])
    np.testing.assert_array_equal(reoriented[0], other.array[0].transpose())


REFUSED = {
    "sform and pixdim": (
        patch(nifti(), PIXDIM + 4, "3f", 1, 1, 1),
        ContradictoryHeaderError,
        "sform of its header states a spacing of 2 x 3 x 4 mm, but pixdim 1 x 1 x 1 mm",
    ),
    "sform and qform flipped": (
        nifti(qform=AFFINE @ np.diag([-1, 1, 1, 1])),
        ContradictoryHeaderError,
        "point to LPS, the qform says RPS",
    ),
    "sheared": (_sheared(0.5), ShearedGridError, "9.5 degrees from perpendicular"),
    "intercept NaN": (patch(nifti(), INTERCEPT, "f", NAN), ImageError, "the intercept nan"),
    "slope infinite": (patch(nifti(), SLOPE, "f", INFINITY), ImageError, "the slope inf"),
    "data type": (patch(nifti(), DATATYPE, "h", 1234), ImageError, "unknown data type 1234"),
    "bits per voxel": (patch(nifti(), BITPIX, "h", 8), ImageError, "with 8 bits per voxel"),
    "negative size": (patch(nifti(), DIM + 2, "h", -9), ImageError, "states the dimensions"),
    "no size": (patch(nifti(), DIM + 4, "h", 0), ImageError, "states the dimensions"),
    "too many axes": (patch(nifti(), DIM, "h", 9), ImageError, "cannot be read"),
    "voxels within the header": (
        patch(nifti(), VOX_OFFSET, "f", 0.0),
        ImageError,
        "begin at byte 0",
    ),
    "voxels nowhere": (patch(nifti(), VOX_OFFSET, "f", NAN), ImageError, "begin at byte nan"),
    "no NIfTI": (patch(nifti(), MAGIC, "4s", b"abcd"), ImageError, "not a NIfTI file"),
    "larger than its voxels": (
        patch(nifti(), DIM + 2, "3h", 30000, 30000, 30000),
        TruncatedImageError,
        "cannot hold 54000000000000 bytes",
    ),
    "complex": (
        nifti(data=voxels().astype(np.complex64)),
        ImageError,
        "complex numbers",
    ),
    "empty": (b"", TruncatedImageError, "is empty"),
    "half a header": (nifti()[:200], TruncatedImageError, "truncated within its header"),
    "singular": (nifti(np.diag([2.0, 3.0, 0.0, 1.0]), None), ImageError, "singular"),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", REFUSED)
def test_headers_that_cannot_be(tmp_path: Path, name: str, ending: str) -> None:
    """One line that names the file; the same from both readers of headers."""
    content, kind, message = REFUSED[name]
    path = write(tmp_path / f"a{ending}", content)
    with pytest.raises(kind, match=message) as problem:
        read_image(path)
    assert len(str(problem.value).splitlines()) == 1 and str(path) in str(problem.value)


def test_a_header_without_orientation_is_taken_as_stored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", nifti(None, None))
    array, header = read_stored(path)
    np.testing.assert_array_equal(array, voxels())
    assert header.orientation == "LPS" and header.spacing == SPACING and not header.has_orientation


@pytest.mark.parametrize(("code", "factor"), [(1, 1000.0), (3, 0.001)])
def test_units(tmp_path: Path, code: int, factor: float) -> None:
    """Metres and micrometres become millimetres; nibabel ignores the unit, which is said."""
    path = write(tmp_path / "a.nii", patch(nifti(), UNITS, "B", code))
    np.testing.assert_allclose(read_header(path).spacing, np.array(SPACING) * factor)
    assert any("takes them as millimetres" in line for line in nnunet_differences(path))


def test_negative_pixdim_without_an_sform_is_no_spacing(tmp_path: Path) -> None:
    content = patch(nifti(sform=None), PIXDIM + 4, "3f", -2, -3, 4)
    path = write(tmp_path / "a.nii", content)
    assert stated_geometry(path).has_spacing is False
    assert stated_geometry(write(tmp_path / "b.nii", SAME["negative pixdim"][0])).has_spacing


def test_scaled_values_of_every_type(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
        stored = (np.arange(990).reshape(9, 10, 11) % 250).astype(dtype)
        path = write(tmp_path / "a.nii.gz", patch(nifti(data=stored), SLOPE, "2f", 0.5, -3.0))
        np.testing.assert_array_equal(read_stored(path)[0], stored * 0.5 - 3.0)


def test_byte_order_and_version_2(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(voxels(), AFFINE)
    swapped = nibabel.Nifti1Image(voxels(), None, image.header.as_byteswapped(">"))
    nibabel.save(swapped, tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti2Image(voxels(), AFFINE), tmp_path / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "c.img")
    for name in ("a.nii", "b.nii.gz", "c.img", "c.hdr"):
        array, header = read_stored(tmp_path / name)
        np.testing.assert_array_equal(array, voxels())
        np.testing.assert_allclose(header.affine, AFFINE)
        assert array.dtype == np.int16 and array.dtype.isnative


def test_half_of_a_pair(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(voxels(), AFFINE), tmp_path / "c.img")
    (tmp_path / "c.hdr").rename(tmp_path / "d.hdr")
    for name, missing in (("c.img", "c.hdr"), ("d.hdr", "d.img")):
        with pytest.raises(ImageError, match=f"needs its other half {missing}"):
            read_image(tmp_path / name)


def test_an_uncompressed_namesake_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", nifti())
    other = write(tmp_path / "a.nii", nifti(data=voxels() + np.int16(1)))
    np.testing.assert_array_equal(read_stored(path)[0], voxels())
    assert twin_of(path) == other and twin_of(other) is None
    write(other, nifti())
    assert twin_of(path) is None, "the same content does no harm"


def test_a_name_that_lies_about_compression(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", nifti())
    shutil.move(tmp_path / "a.nii.gz", tmp_path / "a.nii")
    with pytest.raises(ImageError, match="compressed despite its name; rename it"):
        read_image(tmp_path / "a.nii")


def test_a_small_file_that_states_a_huge_image_takes_no_memory(tmp_path: Path) -> None:
    """Zeros compress a thousandfold; the header must not make us ask for what cannot be."""
    content = patch(nifti(), DIM + 2, "3h", 20000, 20000, 20000)
    path = write(tmp_path / "a.nii.gz", content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ColipriError):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_geometry_equals_nibabels_for_oblique_scans(tmp_path: Path) -> None:
    angle = math.radians(17)
    turn = np.eye(4)
    turn[:3, :3] = [
        [math.cos(angle), 0, math.sin(angle)],
        [0, 1, 0],
        [-math.sin(angle), 0, math.cos(angle)],
    ]
    path = tmp_path / "a.nii.gz"
    image: Any = nibabel.Nifti1Image(voxels(), turn @ AFFINE)
    nibabel.save(image, path)
    header = read_header(path)
    np.testing.assert_allclose(header.affine, turn @ AFFINE, atol=1e-4)
    np.testing.assert_allclose(header.spacing, SPACING, rtol=1e-6)
    assert nnunet_differences(path) == []
