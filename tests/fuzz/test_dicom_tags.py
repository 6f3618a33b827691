"""Any value in a DICOM tag, any cut: the whole series is read, or refused with one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import Workspace
from dicom_writing import save, slice_dataset
from fuzz.limits import Outcomes, fuzz
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from colipri.imageio.dicom.headers import TAGS
from colipri.imageio.dicom.pixels import read_series
from colipri.run.convert_dataset import main as convert

pytestmark = pytest.mark.slow

SLICES = range(30, 35)
MORE = ["BitsAllocated", "HighBit", "PhotometricInterpretation", "PlanarConfiguration",
        "SpecificCharacterSet", "InstanceNumber", "PixelPaddingValue", "WindowCenter"]  # fmt: skip
TEXTS = [b"", b"0", b"-1", b"1e999", b"nan", b"abc", b"1\\2", b"1\\2\\3", b"1\\2\\3\\4\\5\\6",
         b"0\\0\\0", b"0\\0\\0\\0\\0\\0", b"1.2.840.1", b"ORIGINAL\\PRIMARY\\AXIAL", b"\xff\xfe",
         b"1\\0\\0\\0\\-1\\0", b"1e30", b"32767", b"MONOCHROME1", b"CT", b"\x00\x00"]  # fmt: skip
VALUES = (
    st.sampled_from(TEXTS) | st.binary(max_size=16) | st.floats().map(lambda x: str(x).encode())
)


def _set_raw(path: Path, name: str, value: bytes) -> None:
    """Write the bytes of a tag as they are, valid or not."""
    tag = pydicom.datadict.tag_for_keyword(name)
    assert tag is not None
    vr = pydicom.datadict.dictionary_VR(tag)
    vr = vr if len(vr) == 2 else "US"
    value += b" " * (len(value) % 2)
    data = pydicom.dcmread(path)
    data._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    data.save_as(path)


def _series(folder: Path) -> list[Path]:
    for file in folder.glob("*"):
        file.unlink()
    return [save(slice_dataset(k), folder / f"IM{k:04d}.dcm") for k in SLICES]


def _damage(
    files: list[Path], tags: list[tuple[str, bytes]], one: int | None, cut: int | None
) -> None:
    for number, file in enumerate(files):
        if one is None or number == one:
            for name, value in tags:
                _set_raw(file, name, value)
    if cut is not None:
        file = files[one or 0]
        content = file.read_bytes()
        file.write_bytes(content[: min(cut, len(content) - 1)])


TAG_CHANGES = st.lists(st.tuples(st.sampled_from([*TAGS, *MORE]), VALUES), min_size=1, max_size=2)
ONE = st.none() | st.integers(0, len(SLICES) - 1)
CUT = st.none() | st.integers(0, 12000)


def test_readers(tmp_path: Path) -> None:
    """Never a shorter scan, never other values than those of the slices that are untouched."""
    outcomes = Outcomes()
    expected = sitk.GetArrayFromImage(read_series(_series(tmp_path)[0].parent))

    def check(tags: list[tuple[str, bytes]], one: int | None, cut: int | None) -> None:
        _damage(_series(tmp_path), tags, one, cut)
        image = outcomes.of(lambda: read_series(tmp_path))
        if isinstance(image, sitk.Image):
            found = sitk.GetArrayFromImage(image)
            assert found.shape[0] >= len(SLICES) or len(tags) > 1
            if one is not None and found.shape == expected.shape:
                same = [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
                assert sum(same) >= len(SLICES) - 1

    fuzz(check, TAG_CHANGES, ONE, CUT)
    assert outcomes.tried > 50 and 0 < outcomes.refused < outcomes.tried


def test_conversion(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Exit code 0 with the whole scan, or 1 with one line."""
    arguments = ["dicom", "-i", str(tmp_path / "in"), "-d", "501", "-n", "F", "-np", "1"]
    arguments += ["--restart", "--min_slices", "2"]

    def check(tags: list[tuple[str, bytes]], one: int | None, cut: int | None) -> None:
        _damage(_series(tmp_path / "in"), tags, one, cut)
        code = convert(arguments)
        printed = capsys.readouterr()
        assert code in (0, 1) and "Traceback" not in printed.out + printed.err
        if code == 0:
            images = (workspace.raw / "Dataset501_F" / "imagesTr").glob("*.nii.gz")
            depths = [sitk.ReadImage(str(image)).GetSize()[2] for image in images]
            assert sum(depths) >= len(SLICES) or len(tags) > 1
        else:
            assert len(printed.err.splitlines()) == 1

    fuzz(check, TAG_CHANGES, ONE, CUT)
