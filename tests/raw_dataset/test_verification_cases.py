"""What real archives hold: formats, links, encodings, modalities, many problems at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Workspace
from raw_dataset.breakages import patch_nifti
from raw_dataset.small_raw_dataset import NAME, SmallRawDataset, scan, voxels, with_voxels

from colipri.raw_dataset.verification.issues import SHOWN_PER_CODE
from colipri.raw_dataset.verification.verify import verify_dataset, write_verification


@pytest.fixture
def data(workspace: Workspace) -> SmallRawDataset:
    return SmallRawDataset(workspace.raw)


def codes(data: SmallRawDataset, processes: int = 1) -> list[str]:
    """Codes of all findings after saving."""
    data.save()
    return [issue.code for issue in verify_dataset(NAME, processes).issues]


def test_all_problems_in_one_pass_and_the_same_in_parallel(data: SmallRawDataset) -> None:
    content = data.image("a").read_bytes()
    data.image("a").write_bytes(content[: len(content) - 9])
    data.write_report("a", b"")
    data.row("a").update(split="training", effusion="maybe")
    image = scan("cip_testinput")
    data.write_image("b", with_voxels(image, voxels(image) + 1024))
    data.write_report("b", "Kein Erguss, Herz normal groß.".encode("cp1252"))
    data.row("b")["subject"] = "p_a"
    expected = {
        "image_truncated", "report_empty", "split_unknown", "finding_value_unknown",
        "hu_not_rescaled", "report_encoding", "subject_on_two_sides", "finding_constant",
    }  # fmt: skip
    assert set(codes(data)) == expected
    assert verify_dataset(NAME, 2) == verify_dataset(NAME, 1)


def _clipped(image: Any) -> Any:
    return with_voxels(image, np.clip(voxels(image), -160, 240))


def _unit(image: Any) -> Any:
    array = voxels(image).astype(np.float32)
    return with_voxels(image, (array - array.min()) / (array.max() - array.min()))


def _padded_and_stored(image: Any) -> Any:
    array = voxels(image) + 1024
    array[:, :5] = -2000
    return with_voxels(image, array)


def _padded_and_twice(image: Any) -> Any:
    array = voxels(image) - 1024
    array[:, :5] = -3072
    return with_voxels(image, array)


def _padded_far_below(image: Any) -> Any:
    array = voxels(image)
    array[:, :5] = -8192
    return with_voxels(image, array)


def _infinite(image: Any) -> Any:
    array = voxels(image).astype(np.float64)
    array[3, 4, 5] = np.inf
    return with_voxels(image, array)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_clipped, {"hu_windowed"}),
        (_unit, {"hu_normalised"}),
        (_padded_and_stored, {"hu_not_rescaled", "hu_padding"}),
        (_padded_and_twice, {"hu_rescaled_twice", "hu_padding"}),
        (_padded_far_below, {"hu_padding"}),
        (_infinite, {"values_not_finite"}),
        (lambda image: with_voxels(image, np.clip(voxels(image), -1000, 1000)), set()),
        (lambda image: with_voxels(image, np.clip(voxels(image), -1024, 3071)), set()),
        (lambda image: with_voxels(image, voxels(image).astype(np.float32) + 0.25), set()),
        (lambda image: with_voxels(image, voxels(image) - 24), set()),  # intercept -1000 for -1024
        (lambda image: image[8:-8, 16:-16, 10:40], set()),  # a crop with hardly any outside air
    ],
)
def test_values(data: SmallRawDataset, change: Callable[[Any], Any], expected: set[str]) -> None:
    data.write_image("a", change(scan("cip_ct64")))
    assert set(codes(data)) == expected


def test_other_modalities_are_not_judged_in_hu(data: SmallRawDataset) -> None:
    data.description["channel_names"] = {"0": "MR_T1"}
    for case in ("a", "b"):
        image = scan("cip_ct64" if case == "a" else "cip_testinput")
        array = voxels(image).astype(np.float32)
        data.write_image(case, with_voxels(image, (array - array.min()) / 100))
    assert codes(data) == []
    data.description["channel_names"] = {"0": "ct"}
    assert set(codes(data)) == {"hu_windowed"}


def test_more_or_fewer_dimensions(data: SmallRawDataset) -> None:
    import SimpleITK as sitk

    image = scan("cip_ct64")
    path = data.write_image("a", sitk.JoinSeries([image, image + 1]))
    assert codes(data) == ["image_not_3d"]
    result = verify_dataset(NAME, 1)
    assert "64 x 59 x 79 x 2" in result.issues[0].message
    data.write_image("a", sitk.JoinSeries([image]))  # a fourth axis of length one is harmless
    assert codes(data) == []
    rgb = sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3)
    sitk.WriteImage(rgb, str(path))
    assert codes(data) == ["image_not_3d"]
    data.write_image("a", image[:, :, 10:11])  # a single slice in three dimensions
    assert codes(data) == ["image_not_3d"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("A small effusion, Erguß.".encode("utf-16"), ["report_encoding"]),
        ("A small effusion on the left side.".encode("utf-16-le"), ["report_encoding"]),
        ("Small effusion, épanchement.".encode("latin-1"), ["report_encoding"]),
        ("Small effusion, épanchement.".encode("utf-8-sig"), []),
        ("Petit épanchement à gauche.".encode(), ["report_without_findings"]),
        ("Small effusion, Ã©panchement.".encode(), ["report_encoding"]),  # encoded twice
        (b"Small effusion, \xef\xbf\xbdpanchement.", ["report_damaged"]),
        (b"PK\x03\x04 word/document.xml", ["report_not_text"]),
        (b"{\\rtf1\\ansi Small effusion.}", ["report_not_text"]),
        (b"\xef\xbb\xbf\n", ["report_empty"]),
    ],
)
def test_report_bytes(data: SmallRawDataset, content: bytes, expected: list[str]) -> None:
    data.write_report("a", content)
    assert codes(data) == expected


def test_json_reports(data: SmallRawDataset) -> None:
    data.report("a").unlink()
    path = data.folder / "reportsTr" / "a.json"
    path.write_text(json.dumps({"findings": "A small left effusion.", "impression": None}))
    assert codes(data) == []
    path.write_text(json.dumps({"findings": "", "impression": None}))
    assert codes(data) == ["report_empty"]
    path.write_text(json.dumps(["a", "list"]))
    assert codes(data) == ["report_unreadable"]


def test_symbolic_links(data: SmallRawDataset, tmp_path: Path) -> None:
    """An archive that is linked into the folder is fine; a link that points nowhere is named."""
    archive = tmp_path / "archive.nii.gz"
    data.image("a").rename(archive)
    data.image("a").symlink_to(archive)
    data.row("a")["image"] = "imagesTr/a_0000.nii.gz"
    assert codes(data) == []
    data.row("a")["image"] = ""
    archive.unlink()
    data.report("b").unlink()
    data.report("b").symlink_to(tmp_path / "unmounted.txt")
    assert codes(data) == ["image_missing", "report_missing"]
    messages = [issue.message for issue in verify_dataset(NAME, 1).issues]
    assert f"a link to {archive}, which does not exist" in messages[0]
    assert f"a link to {tmp_path / 'unmounted.txt'}, which does not exist" in messages[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_files_without_permission(data: SmallRawDataset) -> None:
    data.image("a").chmod(0)
    data.report("b").chmod(0)
    assert codes(data) == ["image_unreadable", "report_unreadable"]


def test_folders_in_place_of_files(data: SmallRawDataset) -> None:
    """What also root cannot read."""
    data.image("a").unlink()
    data.image("a").mkdir()
    data.report("b").unlink()
    data.report("b").mkdir()
    assert codes(data) == ["image_unreadable", "report_unreadable"]


def test_a_file_that_is_not_compressed_despite_its_name(data: SmallRawDataset) -> None:
    import gzip

    data.image("a").write_bytes(gzip.decompress(data.image("a").read_bytes()))
    assert codes(data) == ["image_unreadable"]
    assert "not compressed despite its name" in verify_dataset(NAME, 1).issues[0].message


def test_duplicates_are_found_in_other_formats_and_orders(data: SmallRawDataset) -> None:
    """By content: another file format, another orientation, another type of the same values."""
    import SimpleITK as sitk

    image = sitk.DICOMOrient(sitk.Cast(scan("cip_ct64"), sitk.sitkFloat32), "RAI")
    path = data.folder / "imagesTr" / "copy.nrrd"
    sitk.WriteImage(image, str(path))
    data.row("b")["image"] = "imagesTr/copy.nrrd"
    data.image("b").unlink()
    assert codes(data) == ["image_duplicate_sides"]
    issue = verify_dataset(NAME, 1).issues[0]
    assert "b (val)" in issue.message
    sitk.WriteImage(image + 1, str(path))
    assert codes(data) == []


def test_sidecars_of_images_are_not_lost_files(data: SmallRawDataset) -> None:
    import SimpleITK as sitk

    data.image("a").unlink()
    sitk.WriteImage(scan("cip_ct64"), str(data.folder / "imagesTr" / "a.mhd"))
    assert (data.folder / "imagesTr" / "a.raw").exists()
    data.row("a")["image"] = "imagesTr/a.mhd"
    (data.folder / "imagesTr" / ".DS_Store").write_bytes(b"")
    assert codes(data) == []


def test_headers_of_other_formats_without_spacing(data: SmallRawDataset) -> None:
    array = voxels(scan("cip_ct64"))
    size = " ".join(str(n) for n in reversed(array.shape))
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nencoding: raw\nendian: little\n\n"
    mha = (
        f"ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_SHORT\n"
        "BinaryData = True\nElementDataFile = LOCAL\n"
    )
    data.image("a").unlink()
    for name, header in (("a.nrrd", nrrd), ("a.mha", mha)):
        (data.folder / "imagesTr" / name).write_bytes(header.encode() + array.tobytes())
        data.row("a")["image"] = f"imagesTr/{name}"
        assert set(codes(data)) == {"spacing_missing", "orientation_missing"}
        (data.folder / "imagesTr" / name).unlink()


def test_channels_that_agree(data: SmallRawDataset) -> None:
    data.description["channel_names"] = {"0": "CT", "1": "PET"}
    for case in ("a", "b"):
        image = scan("cip_ct64" if case == "a" else "cip_testinput")
        data.write_image(case, image + 500, channel=1)
    assert codes(data) == []
    patch_nifti(data.image("b", 1), 80, b"\x00\x00\x00\x00")
    data.image("a", 1).unlink()
    assert set(codes(data)) >= {"image_missing", "spacing_missing"}


def test_labels_of_regions(data: SmallRawDataset) -> None:
    data.description["labels"] = {"background": 0, "whole": [1, 2], "core": [2]}
    data.write_label("a", (scan("cip_ct64") > 0) * 2)
    assert codes(data) == []


def test_thousands_of_findings_stay_readable(data: SmallRawDataset) -> None:
    for number in range(40):
        data.write_report(f"lost_{number:03d}", b"No effusion was seen.")
    data.save()
    result = verify_dataset(NAME, 1)
    lines = result.to_text().splitlines()
    assert lines[0].startswith("WARNING report_unlisted (40): ")
    assert len(lines) == 1 + SHOWN_PER_CODE + 1 + 1
    assert "and 30 more" in lines[-2]
    assert lines[-1] == f"{NAME}: 2 cases, 0 errors, 40 warnings, 0 notes"
    assert len(result.to_list()) == 40


def test_verification_file(data: SmallRawDataset, tmp_path: Path) -> None:
    data.write_report("a", b"")
    data.save()
    result = verify_dataset(401, 1)
    content = json.loads(write_verification(result, tmp_path).read_text())
    assert content["dataset"] == NAME and content["num_cases"] == 2
    assert (content["num_errors"], content["num_warnings"]) == (1, 0)
    (finding,) = content["findings"]
    assert finding["code"] == "report_empty" and finding["severity"] == "error"
    assert finding["case"] == "a" and finding["file"] == str(data.report("a"))
    assert "remove it" in finding["message"]


def test_nothing_is_changed(data: SmallRawDataset) -> None:
    data.save()
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in data.folder.rglob("*")}
    verify_dataset(NAME, 2)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in data.folder.rglob("*")} == before
