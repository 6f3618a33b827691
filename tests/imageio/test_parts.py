"""Images of several files count as one file: for changes, digests, copies and unused files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from conftest import Workspace
from preprocessing.small_dataset import NAME, make_plans, phantom, write_image, write_raw_dataset
from raw_dataset.small_raw_dataset import SmallRawDataset, scan

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.images import check_source, place_image
from colipri.experiment_planning.fingerprint import extract_fingerprint
from colipri.imageio.errors import ImageError
from colipri.imageio.parts import files_of, image_ending
from colipri.imageio.reading import read_image
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.raw_dataset.verification.verify import verify_dataset


def _metaimage(folder: Path, array: np.ndarray) -> tuple[Path, Path]:
    write_image(folder / "a_0000.mhd", array)
    return folder / "a_0000.mhd", folder / "a_0000.raw"


def _nrrd(folder: Path, array: np.ndarray) -> tuple[Path, Path]:
    write_image(folder / "a_0000.nhdr", array)
    (data,) = (path for path in folder.glob("a_0000.raw*"))
    return folder / "a_0000.nhdr", data


def _pair(folder: Path, array: np.ndarray) -> tuple[Path, Path]:
    """(S, A, R) voxels: x to the right, y to anterior, z to superior."""
    image = nibabel.Nifti1Pair(array.transpose(), np.diag([4.0, 5.0, 6.0, 1.0]))
    nibabel.save(image, folder / "a_0000.hdr")
    return folder / "a_0000.hdr", folder / "a_0000.img"


def _tiff(folder: Path, array: np.ndarray) -> tuple[Path, Path]:
    """The side file is the spacing, the edit another spacing."""
    tifffile.imwrite(folder / "a_0000.tif", array[:, ::-1, ::-1])
    spacing = folder / "a.json"
    if not spacing.exists():
        spacing.write_text(json.dumps({"spacing": [6.0, 5.0, 4.0]}))
    return folder / "a_0000.tif", spacing


FORMATS: list[Callable[[Path, np.ndarray], tuple[Path, Path]]] = [_metaimage, _nrrd, _pair, _tiff]


def _edit(side: Path, folder: Path, write: Callable[..., tuple[Path, Path]]) -> None:
    """Change the side file alone; the header keeps its bytes and its time."""
    if side.suffix == ".json":
        side.write_text(json.dumps({"spacing": [6.0, 5.0, 5.0]}))
        return
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    _, other = write(elsewhere, phantom(5))
    side.write_bytes(other.read_bytes())


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    return write_raw_dataset(workspace.raw)


def _replace_case_a(raw: Path, image: Path) -> None:
    table = raw / "cases.csv"
    lines = table.read_text().splitlines()
    lines[0] += ",image"
    lines[1:] = [
        line + ("," if n else f",imagesTr/{image.name}") for n, line in enumerate(lines[1:])
    ]
    table.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write", FORMATS)
def test_an_edited_side_file_is_noticed_everywhere(
    raw: Path, workspace: Workspace, write: Callable[..., tuple[Path, Path]]
) -> None:
    (raw / "imagesTr" / "a_0000.nii.gz").unlink()
    image, side = write(raw / "imagesTr", phantom(0))
    _replace_case_a(raw, image)
    expected = read_image(image)
    np.testing.assert_array_equal(expected.array[0], phantom(0))
    assert set(files_of(image)) == {image, side}
    result = verify_dataset(NAME, 1)
    assert [issue for issue in result.issues if "unlisted" in issue.code] == []
    assert result.errors == ()
    before = extract_fingerprint(NAME, 1)
    plans = make_plans()
    store = preprocess_dataset(NAME, plans, num_processes=1)["3d_lowres"]
    assert store is not None
    made, _ = store.read_crop("a", (0, 0, 0), (24, 24, 32))
    target = place_image(image, workspace.raw.parent / "a_0000", "compress")
    state = image.stat()

    _edit(side, raw, write)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not np.array_equal(read_image(image).array, expected.array) or (
        read_image(image).spacing != expected.spacing
    )
    assert extract_fingerprint(NAME, 1) != before
    store = preprocess_dataset(NAME, plans, num_processes=1)["3d_lowres"]
    assert store is not None
    again, _ = store.read_crop("a", (0, 0, 0), (24, 24, 32))
    assert not np.array_equal(made, again)
    assert place_image(image, target.with_name("a_0000"), "compress") == target
    np.testing.assert_array_equal(read_image(target).array, read_image(image).array)
    assert read_image(target).spacing == pytest.approx(read_image(image).spacing)

    if side.suffix != ".json":  # the verification's own memory: a voxel that is no number
        side.write_bytes(side.read_bytes()[: len(side.read_bytes()) // 2])
        assert "a" in {issue.case for issue in verify_dataset(NAME, 1).errors}


@pytest.mark.parametrize("write", FORMATS)
def test_several_files_are_copied_as_one_and_never_linked(
    tmp_path: Path, write: Callable[..., tuple[Path, Path]]
) -> None:
    image, side = write(tmp_path, phantom(0))
    copied = place_image(image, tmp_path / "imagesTr" / "case_0000", "copy")
    assert copied.name == "case_0000.nii.gz"
    np.testing.assert_array_equal(read_image(copied).array[0], phantom(0))
    assert read_image(copied).spacing == pytest.approx((6.0, 5.0, 4.0))
    with pytest.raises(ColipriError, match="consists of several files"):
        place_image(image, tmp_path / "imagesTr" / "case_0000", "link")
    side.unlink()
    if side.suffix != ".json":
        with pytest.raises(ColipriError, match="consists of does not exist"):
            check_source(image)
        with pytest.raises(ColipriError, match=r"does not exist|cannot be read"):
            read_image(image)
    else:
        with pytest.raises(ColipriError, match="does not say how large a voxel is"):
            place_image(image, tmp_path / "imagesTr" / "other_0000", "compress")


def test_data_files_by_list_and_by_pattern(tmp_path: Path) -> None:
    header = "NDims = 3\nDimSize = 2 2 3\nElementType = MET_SHORT\nElementSpacing = 1 1 2\n"
    for number in range(1, 4):
        (tmp_path / f"s{number:02d}.raw").write_bytes(np.full(4, number, np.int16).tobytes())
    expected = [tmp_path / f"s{number:02d}.raw" for number in range(1, 4)]
    for name, value in (
        ("list.mhd", "LIST\ns01.raw\ns02.raw\ns03.raw\n"),
        ("pattern.mhd", "s%02d.raw 1 3 1\n"),
        ("crlf.mhd", "LIST\r\ns01.raw\r\ns02.raw\r\ns03.raw\r\n"),
    ):
        path = tmp_path / name
        path.write_bytes((header + "ElementDataFile = " + value).encode())
        assert list(files_of(path)) == [path, *expected]
        array = read_image(path, "LPS").array[0]
        assert [int(array[0, 0, k]) for k in range(3)] == [1, 2, 3]
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 3\nencoding: raw\nendian: little\n"
    for name, value in (
        ("a.nhdr", "LIST\ns01.raw\ns02.raw\ns03.raw\n"),
        ("b.nrrd", "s%02d.raw 1 3 1\n"),
    ):
        (tmp_path / name).write_text(nrrd + "data file: " + value)
        assert list(files_of(tmp_path / name)) == [tmp_path / name, *expected]
    inline = tmp_path / "c.nrrd"
    inline.write_bytes(nrrd.encode() + b"\n" + b"data file: s01.raw" + bytes(24))
    assert files_of(inline) == (inline,)


@pytest.mark.parametrize("name", ["/etc/hostname", "../../secret.raw", "a/../../x.raw"])
def test_headers_do_not_lead_out_of_their_folder(tmp_path: Path, name: str) -> None:
    header = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
    (tmp_path / "a.mhd").write_text(header + name + "\n")
    (tmp_path / "a.nhdr").write_text("NRRD0004\ntype: uchar\ndata file: " + name + "\n")
    for file in ("a.mhd", "a.nhdr"):
        with pytest.raises(ImageError, match="outside of its folder"):
            files_of(tmp_path / file)
        with pytest.raises(ImageError, match="outside of its folder"):
            read_image(tmp_path / file)


def test_unused_files_are_told_by_their_whole_name(workspace: Workspace) -> None:
    """Names with dots: 1.2.840.5 uses nothing of 1.2.840.6."""
    data = SmallRawDataset(workspace.raw)
    data.image("a").rename(data.folder / "imagesTr" / "1.2.840.5_0000.nii.gz")
    data.report("a").rename(data.folder / "reportsTr" / "1.2.840.5.txt")
    data.row("a").update(case="1.2.840.5")
    (data.folder / "imagesTr" / "1.2.840.5_0000.json").write_text("{}")  # dcm2niix writes it
    data.save()
    assert verify_dataset(data.name, 1).issues == ()
    SimpleITK.WriteImage(scan("cip_ct64"), str(data.folder / "imagesTr" / "1.2.840.6_0000.nii.gz"))
    SimpleITK.WriteImage(scan("cip_ct64"), str(data.folder / "imagesTr" / "1.2.840.5_0000.nrrd"))
    codes = [(issue.code, Path(issue.file).name) for issue in verify_dataset(data.name, 1).issues]
    assert codes == [
        ("image_unlisted", "1.2.840.5_0000.nrrd"),
        ("image_unlisted", "1.2.840.6_0000.nii.gz"),
    ]


def test_endings() -> None:
    assert image_ending("Scan.NII.GZ") == ".NII.GZ" and image_ending("1.2.840.5") == ""
    assert image_ending("a.img.gz") == ".img.gz" and image_ending("a.gipl.gz") == ".gipl.gz"
