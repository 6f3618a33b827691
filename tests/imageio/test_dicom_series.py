"""Sorting DICOM files into volumes: real pixels of the shipped scan, defects made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writing import expected, save, slice_dataset, uid, write_series
from pydicom.uid import SecondaryCaptureImageStorage

from colipri.common.errors import ColipriError
from colipri.imageio.dicom.files import SkippedFile, read_file, walk_files
from colipri.imageio.dicom.headers import Instance
from colipri.imageio.dicom.pixels import read_series, read_volume
from colipri.imageio.dicom.series import Series, find_series


def _find(folder: Path, **options: Any) -> tuple[list[Series], list[SkippedFile]]:
    found = [item for file in walk_files(folder) if isinstance(file, Path)
             for item in read_file(file)]  # fmt: skip
    instances = [item for item in found if isinstance(item, Instance)]
    series, left_out = find_series(instances, **options)
    counted = sum(len(s.instances) for s in series) + sum(part.files for part in left_out)
    assert counted == len(instances)  # nothing is lost without a word
    return series, left_out


def _reasons(left_out: list[SkippedFile]) -> str:
    return "; ".join(part.reason for part in left_out)


def test_slices_are_sorted_by_position_not_by_number_or_name(tmp_path: Path) -> None:
    write_series(tmp_path)
    image = read_series(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected())
    assert image.GetSpacing() == (3.0, 3.0, 3.0)
    assert image.GetOrigin() == (-200.0, -150.0, -300.0 + 90)
    assert image.GetPixelIDTypeAsString() == "16-bit signed integer"


def test_slices_in_several_folders_and_without_mark_make_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", range(30, 36))
    for file in write_series(tmp_path / "b", range(36, 42)):
        file.write_bytes(file.read_bytes()[132:])  # no preamble, no "DICM"
    ((series,), left_out) = _find(tmp_path)
    assert not left_out
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(series)[0]), expected())


def test_sagittal_order_and_direction(tmp_path: Path) -> None:
    """The same slices turned in space: the direction must follow the headers."""
    for k in range(6):
        data = slice_dataset(30 + k)
        data.ImageOrientationPatient = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
        data.ImagePositionPatient = [10.0 - 2.0 * k, 0.0, 0.0]
        save(data, tmp_path / f"{k}.dcm")
    image = read_series(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected(range(30, 36)))
    corner = image.TransformIndexToPhysicalPoint((0, 0, 5))
    np.testing.assert_allclose(corner, [0.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((1, 2, 0)), [10.0, 3.0, -6.0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ([35], "slices are missing: 1, near -195 mm; they lie 3 mm apart"),
        ([34, 35, 38], "slices are missing: 3, near -198, -186 mm"),
    ],
)
def test_missing_slices(tmp_path: Path, missing: list[int], reason: str) -> None:
    write_series(tmp_path, [k for k in range(30, 42) if k not in missing])
    series, left_out = _find(tmp_path)
    assert not series
    assert reason in _reasons(left_out)
    with pytest.raises(ColipriError, match="missing"):
        read_series(tmp_path)


def test_uneven_slices(tmp_path: Path) -> None:
    write_series(tmp_path, range(30, 36))
    save(slice_dataset(36, ImagePositionPatient=[-200.0, -150.0, -190.9]), tmp_path / "x.dcm")
    assert "unevenly spaced" in _reasons(_find(tmp_path)[1])


def test_copies_are_dropped(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", [31, 32])  # the same instances again
    again = slice_dataset(33, SOPInstanceUID=uid("other"))  # the same picture under another UID
    save(again, tmp_path / "b" / "again.dcm")
    ((series,), left_out) = _find(tmp_path)
    assert len(series.instances) == 12
    assert sorted((p.reason, p.files) for p in left_out) == [
        ("a copy of a file with the same instance UID", 2),
        ("a copy of a slice at the same place", 1),
    ]


@pytest.mark.parametrize(
    ("mark", "value"), [("ConvolutionKernel", "B70f"), ("AcquisitionNumber", 2)]
)
def test_two_scans_under_one_uid_are_told_apart(tmp_path: Path, mark: str, value: Any) -> None:
    write_series(tmp_path / "a")
    for k in range(30, 42):
        save(
            slice_dataset(k + 20, SOPInstanceUID=uid(k, "x"), **{mark: value},
                          ImagePositionPatient=[-200.0, -150.0, -300.0 + 3 * k]),
            tmp_path / "b" / f"{k}.dcm",
        )  # fmt: skip
    series, left_out = _find(tmp_path)
    assert not left_out
    assert [(s.part, len(s.instances)) for s in series] == [("a", 12), ("b", 12)]
    assert f"told apart by their {mark}" in series[0].notes[0]
    volumes = {sitk.GetArrayFromImage(read_volume(s)[0]).tobytes() for s in series}
    assert volumes == {expected().tobytes(), expected(range(50, 62)).tobytes()}
    with pytest.raises(ColipriError, match="holds 2 DICOM series"):
        read_series(_flat(tmp_path))


def _flat(folder: Path) -> Path:
    target = folder / "flat"
    target.mkdir()
    for n, file in enumerate(sorted(folder.glob("[ab]/*.dcm"))):
        file.rename(target / f"{n}.dcm")
    return target


def test_mixed_scans_that_nothing_tells_apart_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    other = slice_dataset(50, SOPInstanceUID=uid("x"), ImagePositionPatient=[-200, -150, -204])
    save(other, tmp_path / "b" / "x.dcm")
    series, left_out = _find(tmp_path)
    assert not series
    assert "two series are mixed under one UID" in _reasons(left_out)


def test_two_halves_with_a_hole_are_not_two_scans(tmp_path: Path) -> None:
    write_series(tmp_path / "a", range(30, 36), AcquisitionNumber=1)
    write_series(tmp_path / "b", range(37, 42), AcquisitionNumber=2)
    series, left_out = _find(tmp_path)
    assert not series
    assert "slices are missing: 1" in _reasons(left_out)


def test_localiser_secondary_capture_derived_and_others_have_reasons(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    write_series(
        tmp_path / "scout", [3], series="r0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    write_series(tmp_path / "sc", [4], series="r2", SOPClassUID=SecondaryCaptureImageStorage)
    mpr = ["DERIVED", "SECONDARY", "MPR"]
    write_series(tmp_path / "mpr", range(20, 26), series="r3", ImageType=mpr)
    write_series(tmp_path / "mr", range(20, 26), series="r4", Modality="MR")
    write_series(tmp_path / "blank", range(20, 26), series="r5", ImagePositionPatient=None)
    write_series(tmp_path / "compressed", series="r6", ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    dose = slice_dataset(1, series="r7", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")
    save(dose, tmp_path / "dose.dcm")
    series, left_out = _find(tmp_path)
    assert {s.folder.name for s in series} == {"scan", "compressed"}
    reasons = {Path(part.what.split(" and ")[0]).parent.name: part.reason for part in left_out}
    assert reasons["scout"] == "a localiser"
    assert reasons["sc"].startswith("a secondary capture")
    assert reasons["mpr"] == "a derived series: DERIVED, SECONDARY, MPR"
    assert reasons["mr"] == "its modality is MR, not CT"
    assert reasons["blank"].startswith("it has no position")
    assert reasons[tmp_path.name] == "a radiation dose report"
    assert len(_find(tmp_path, with_derived=True)[0]) == 3
    assert len(_find(tmp_path, modalities=("CT", "MR"))[0]) == 3


def test_scout_inside_the_series_is_separated(tmp_path: Path) -> None:
    write_series(tmp_path)
    coronal = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    save(slice_dataset(2, ImageOrientationPatient=coronal), tmp_path / "scout.dcm")
    ((series,), left_out) = _find(tmp_path)
    assert len(series.instances) == 12
    assert _reasons(left_out) == (
        "too few slices: 1, 2 are needed, on another grid or of other orientation than the series"
    )


def test_tilted_gantry_is_straightened(tmp_path: Path) -> None:
    """Slices of a tilted gantry: each is shifted; straight again, the anatomy is where it was."""
    tilt = np.radians(12.0)
    for k in range(30, 50):
        data = slice_dataset(k, GantryDetectorTilt=12.0)
        data.ImageOrientationPatient = [1, 0, 0, 0, np.cos(tilt), np.sin(tilt)]
        data.ImagePositionPatient = [-200.0, -150.0, -300.0 + 3.0 * k / np.cos(tilt)]
        save(data, tmp_path / f"{k}.dcm")
    ((series,), _) = _find(tmp_path)
    assert series.stack.tilt == pytest.approx(12.0, abs=0.1)
    image, notes = read_volume(series)
    assert any("tilted by 12.0 degrees" in note for note in notes)
    for k in (30, 38, 49):  # a voxel of slice k, where its header says that it lies
        row, column = 50, 60
        point = np.array([-200.0, -150.0, -300.0 + 3.0 * k / np.cos(tilt)])
        point += 3.0 * column * np.array([1, 0, 0]) + 3.0 * row * np.array(
            [0, np.cos(tilt), np.sin(tilt)]
        )
        to_point = sitk.TranslationTransform(3, point.tolist())
        one_voxel = sitk.Image(1, 1, 1, sitk.sitkFloat32)
        found = sitk.Resample(image, one_voxel, to_point, sitk.sitkLinear, -5000.0)
        around = expected([k])[0, row - 1 : row + 2, column - 1 : column + 2]
        assert around.min() - 1 <= found[0, 0, 0] <= around.max() + 1


def test_shifted_table_is_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, range(30, 36))
    save(slice_dataset(36, ImagePositionPatient=[-150.0, -150.0, -192.0]), tmp_path / "x.dcm")
    save(slice_dataset(37), tmp_path / "y.dcm")
    assert "shifted against each other" in _reasons(_find(tmp_path)[1])


def test_real_lidc_slices(shared_data: Path) -> None:
    """The twelve original slices read as GDCM's own sorting does."""
    folder = shared_data / "lidc_idri_0314" / "dicom_12_slices"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs, ours = reader.Execute(), read_series(folder)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin())
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing())
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection())


def test_what_is_no_slice_of_a_volume_is_said(tmp_path: Path) -> None:
    write_series(tmp_path / "frames", range(30, 34), series="f", NumberOfFrames=4)
    write_series(tmp_path / "colour", range(30, 34), series="c", SamplesPerPixel=3)
    series, left_out = _find(tmp_path)
    assert not series
    assert sorted(part.reason for part in left_out) == [
        "a colour picture",
        "an enhanced multi-frame object; export it as one file per slice",
    ]


def test_equal_pixels_with_another_rescale_are_no_copies(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    other = slice_dataset(33, SOPInstanceUID=uid("other"), RescaleIntercept=0)
    save(other, tmp_path / "b" / "other.dcm")
    series, left_out = _find(tmp_path)
    assert not series
    assert "two series are mixed under one UID" in _reasons(left_out)
