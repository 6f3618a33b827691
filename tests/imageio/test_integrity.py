"""Truncated files are refused, and headers without spacing or orientation are noticed."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from preprocessing.small_dataset import phantom, write_image

from colipri.common.errors import ColipriError
from colipri.imageio.integrity import StatedGeometry, require_whole, stated_geometry
from colipri.imageio.reading import read_header


def nifti2(path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(phantom(0), np.diag([2.0, 3, 4, 1])), path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.mhd"])
def test_complete_headers(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, phantom(0))
    assert stated_geometry(tmp_path / name) == StatedGeometry(True, True)


@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf"), -1.0])
def test_nifti_without_spacing(tmp_path: Path, spacing: float) -> None:
    path = tmp_path / "a.nii.gz"
    write_image(path, phantom(0))
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[84:88] = struct.pack("<f", spacing)
    path.write_bytes(gzip.compress(bytes(header)))
    assert stated_geometry(path) == StatedGeometry(False, True)
    if spacing == -1.0:
        with pytest.raises(ColipriError, match="sform of its header states a spacing of 4 x 5 x 6"):
            read_header(path)
    else:
        assert read_header(path).spacing == (4.0, 5.0, 6.0)  # of the sform


def test_nifti_2_and_big_endian(tmp_path: Path) -> None:
    nifti2(tmp_path / "a.nii")
    assert stated_geometry(tmp_path / "a.nii") == StatedGeometry(True, True)
    image = nibabel.Nifti1Image(phantom(0), np.diag([2.0, 3, 4, 1]))
    swapped = nibabel.Nifti1Image(phantom(0), None, image.header.as_byteswapped(">"))
    nibabel.save(swapped, tmp_path / "b.nii")
    assert (tmp_path / "b.nii").read_bytes()[:4] == struct.pack(">i", 348)
    assert stated_geometry(tmp_path / "b.nii").has_spacing is True


def test_nrrd_and_metaimage(tmp_path: Path) -> None:
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    mha = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\n"
    for name, header, expected in (
        ("a.nrrd", nrrd + "\n", (False, False)),
        ("b.nrrd", nrrd + "spacings: 1 1 2\n\n", (True, False)),
        ("c.nrrd", nrrd + "spacings: 1 1 NaN\n\n", (False, False)),
        ("d.nrrd", nrrd + "space directions: (1,0,0) (0,1,0) (0,0,2)\n\n", (True, False)),
        ("e.nrrd", nrrd.replace("\n", "\r\n") + "\r\nspacings: 1 1 2", (False, False)),
        ("a.mha", mha + "ElementDataFile = LOCAL\n", (False, False)),
        ("b.mha", mha + "ElementSpacing = 1 1 2\nElementDataFile = LOCAL\n", (True, False)),
        ("c.mha", mha + "TransformMatrix = 1 0 0\nElementDataFile = LOCAL\n", (False, True)),
    ):
        (tmp_path / name).write_bytes(header.encode() + b"\x00" * 16)
        assert stated_geometry(tmp_path / name) == StatedGeometry(*expected), name


def test_other_files(tmp_path: Path) -> None:
    for name in ("a.gipl", "b.nii"):
        (tmp_path / name).write_bytes(b"something else")
        assert stated_geometry(tmp_path / name) == StatedGeometry(None, None)
    assert stated_geometry(tmp_path) == StatedGeometry(True, True)  # a DICOM folder
    with pytest.raises(OSError):
        stated_geometry(tmp_path / "none.nrrd")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.gipl.gz"])
def test_cut_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_image(path, phantom(0))
    require_whole([path, tmp_path])
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ColipriError, match=rf"{name} is truncated"):
            require_whole([path])


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_image(path, phantom(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ColipriError, match="damaged"):
        require_whole([path])


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match=r"none\.nii\.gz cannot be read: No such file"):
        require_whole([tmp_path / "none.nii.gz"])
    (tmp_path / "text.nii").write_text("no image at all")
    with pytest.raises(ColipriError, match=r"text\.nii cannot be read"):
        require_whole([tmp_path / "text.nii"])
    require_whole([tmp_path / "other.nrrd"])  # its reader's business
