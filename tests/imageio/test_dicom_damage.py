"""A series that has lost slices is a problem as a whole, and never a shorter scan."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import Workspace
from dicom_writing import expected, save, slice_dataset, uid, write_series
from pydicom.uid import RLELossless

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.pixels import read_series
from colipri.run.convert_dataset import main

SLICES = range(30, 42)


def _names(folder: Path, form: str) -> list[Path]:
    """The series with names in the order of its slices."""
    paths = []
    for number, k in enumerate(SLICES):
        paths.append(save(slice_dataset(k), folder / form.format(number, uid("name", k))))
    return paths


def _raw_tag(path: Path, name: str, value: bytes) -> None:
    """Write the bytes of a tag as they are, valid or not."""
    data = pydicom.dcmread(path)
    tag = pydicom.datadict.tag_for_keyword(name)
    assert tag is not None
    element = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True
    )
    data._dict[element.tag] = element
    data.save_as(path)


def _set(**tags: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = pydicom.dcmread(path)
        for name, value in tags.items():
            if value is None:
                del data[name]
            else:
                setattr(data, name, value)
        data.save_as(path)

    return change


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\0"),
    "cut in the preamble": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "cut after the series": lambda path: path.write_bytes(path.read_bytes()[:900]),
    "cut before the pixels": lambda path: path.write_bytes(
        path.read_bytes()[: path.read_bytes().index(b"\xe0\x7f\x10\x00")]
    ),
    "cut in the pixels": lambda path: path.write_bytes(path.read_bytes()[:-2000]),
    "one pixel short": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a page of HTML": lambda path: path.write_bytes(b"<html>503 Service Unavailable</html>" * 99),
    "a slope of letters": lambda path: _raw_tag(path, "RescaleSlope", b"abc "),
    "an infinite intercept": lambda path: _raw_tag(path, "RescaleIntercept", b"1e999 "),
    "a position of letters": lambda path: _raw_tag(path, "ImagePositionPatient", b"a\\b\\c "),
    "a position of two numbers": lambda path: _raw_tag(path, "ImagePositionPatient", b"1\\2 "),
    "no position": _set(ImagePositionPatient=None),
    "a flipped orientation": _set(ImageOrientationPatient=[1, 0, 0, 0, -1, 0]),
    "an orientation of zeros": _set(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
    "another pixel spacing": _set(PixelSpacing=[0.3, 0.3]),
    "a pixel spacing of 0": _set(PixelSpacing=[0, 0]),
    "another modality": _set(Modality="OT"),
    "a derived slice": _set(ImageType=["DERIVED", "SECONDARY", "MPR"]),
    "several frames": _set(NumberOfFrames=2),
    "rows of another size": _set(Rows=10),
    "another series UID": _set(SeriesInstanceUID=uid("elsewhere")),
}


@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_slice_is_not_left_out(tmp_path: Path, name: str, place: int) -> None:
    """Also the first and the last, whose loss leaves no gap."""
    folder = tmp_path / "scan"
    files = _names(folder, "IM{0:04d}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(folder)), expected())
    DAMAGE[name](files[place])
    with pytest.raises(ColipriError) as problem:
        read_series(folder)
    assert len(str(problem.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["empty", "cut in the header", "zeros", "no position"])
@pytest.mark.parametrize("form", ["{0}", "IM{0:04d}", "{1}", "{1}.dcm", "scan-{0:03d}.IMA"])
def test_whatever_slices_are_called(tmp_path: Path, form: str, name: str) -> None:
    files = _names(tmp_path / "scan", form)
    DAMAGE[name](files[-1])
    with pytest.raises(ColipriError, match="do not form a volume"):
        read_series(tmp_path / "scan")


def test_other_files_do_no_harm(tmp_path: Path) -> None:
    _names(tmp_path, "IM{0:04d}.dcm")
    (tmp_path / "DICOMDIR").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("")
    (tmp_path / "Thumbs.db").write_bytes(b"x" * 200)
    (tmp_path / "._IM0001.dcm").write_bytes(b"\0\5\x16\7" * 30)  # macOS
    (tmp_path / "IM0003.jpg").write_bytes(b"\xff\xd8" * 99)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), expected())


def _convert(source: Path, number: int, *arguments: str) -> int:
    return main(["dicom", "-i", str(source), "-d", str(number), "-n", "T", "-np", "1", *arguments])


@pytest.mark.parametrize("name", ["empty", "cut in the pixels", "a slope of letters", "zeros"])
def test_conversion_fails_or_leaves_the_scan_out(
    workspace: Workspace, tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    files = _names(tmp_path / "in" / "scan", "IM{0:04d}.dcm")
    write_series(tmp_path / "in" / "other", series="r2")
    DAMAGE[name](files[-1])
    assert _convert(tmp_path / "in", 301) == 1
    assert _convert(tmp_path / "in", 302, "--keep_going") == 0
    images = list((workspace.raw / "Dataset302_T" / "imagesTr").glob("*.nii.gz"))
    assert len(images) == 1 and sitk.ReadImage(str(images[0])).GetSize()[2] == 12
    report = (workspace.raw / "Dataset302_T" / "conversion_report.csv").read_text()
    assert ",problem," in report and str(tmp_path) not in report


def test_only_the_series_of_the_neighbours_is_blamed(workspace: Workspace, tmp_path: Path) -> None:
    """Two series in one folder, one file after the other; then with names that tell nothing."""
    source = tmp_path / "in"
    for number, k in enumerate(SLICES):
        save(slice_dataset(k, series="r1"), source / f"{number:04d}")
        save(slice_dataset(k, series="r2"), source / f"{100 + number:04d}")
    (source / "0106").write_bytes(b"")
    assert _convert(source, 301, "--keep_going") == 0
    assert len(list((workspace.raw / "Dataset301_T" / "imagesTr").iterdir())) == 1
    for number, file in enumerate(sorted(source.iterdir(), key=lambda f: f.name[::-1])):
        file.rename(source / f"x{number}")
    assert _convert(source, 302, "--keep_going") == 1, "no series is left"


def test_members_of_archives(workspace: Workspace, tmp_path: Path) -> None:
    files = _names(tmp_path / "scan", "IM{0:04d}")
    files[3].write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files:
            archive.write(file, f"study/{file.name}")
    assert _convert(tmp_path / "a.zip", 301) == 1


def test_a_folder_of_empty_files_is_a_problem(workspace: Workspace, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "good")
    for number in range(3):
        (tmp_path / "in" / "lost").mkdir(exist_ok=True)
        (tmp_path / "in" / "lost" / f"{number}.dcm").write_bytes(b"")
    assert _convert(tmp_path / "in", 301) == 1


def test_compressed_pixels_that_are_cut(tmp_path: Path) -> None:
    for k in SLICES:
        data = slice_dataset(k)
        data.compress(RLELossless)
        save(data, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), expected())
    last = tmp_path / "41.dcm"
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(ColipriError, match=r"41\.dcm: its pixels cannot be read"):
        read_series(tmp_path)


def test_instance_uids_that_an_anonymiser_made_equal(tmp_path: Path) -> None:
    """Slices at different places are no copies, whatever their UID."""
    for k in SLICES:
        save(slice_dataset(k, SOPInstanceUID=uid("same")), tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path)), expected())


@pytest.mark.parametrize("decimals", [1, 2, 3])
@pytest.mark.parametrize("step", [0.625, 0.7, 1.25, 2.5])
def test_rounded_positions(tmp_path: Path, step: float, decimals: int) -> None:
    """The slice distance is that of the whole scan: the median gap would add up the rounding."""
    count = 60
    for k in range(count):
        place = f"{round(k * step, decimals):.{decimals}f}"
        data = slice_dataset(20, SOPInstanceUID=uid(k), ImagePositionPatient=["0", "0", place])
        save(data, tmp_path / f"{k}.dcm")
    spacing = read_series(tmp_path).GetSpacing()[2]
    assert abs(spacing - step) * (count - 1) <= 10.0**-decimals
    (tmp_path / f"{count // 2}.dcm").unlink()
    with pytest.raises(ColipriError, match="missing"):
        read_series(tmp_path)


def test_a_distance_that_grows_is_uneven(tmp_path: Path) -> None:
    """Each gap is 0.002 mm wider than the one before: no two neighbours show it."""
    place = 0.0
    for k in range(60):
        place += 1.0 + 0.002 * k
        data = slice_dataset(20, SOPInstanceUID=uid(k), ImagePositionPatient=[0, 0, f"{place:.4f}"])
        save(data, tmp_path / f"{k}.dcm")
    with pytest.raises(ColipriError, match="unevenly spaced"):
        read_series(tmp_path)
