"""Label maps on the grid of the preprocessed images: nothing is lost, nothing wrong is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from preprocessing.small_dataset import CASES, NAME, make_plans, write_raw_dataset

from colipri.common.errors import ColipriError
from colipri.preprocessing.label_map import UNKNOWN, LabelSides, resample_labels
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.preprocessing.store import CaseStore


def test_a_value_that_is_smaller_than_a_new_voxel_stays() -> None:
    label = np.zeros((12, 12, 12), dtype=np.int16)
    label[:6] = 1
    label[7, 7, 7] = 2
    small = resample_labels(label, (3, 3, 3))
    assert small[2:].max() == 0 or small[1, 1, 1] == 2
    assert small[1, 1, 1] == 2 and (small[0] == 1).all()
    assert np.array_equal(resample_labels(small, (3, 3, 3)), small)
    assert np.array_equal(resample_labels(label, (24, 24, 24))[::2, ::2, ::2], label)


def test_sides_change_places_and_what_has_no_counterpart_goes() -> None:
    sides = LabelSides({"left lung": (1,), "right lung": (2,), "left kidney": (3,), "spine": (4,)})
    assert sides.named
    label = np.array([UNKNOWN, 0, 1, 2, 3, 4, 9], dtype=np.int16)
    assert sides.swap(label).tolist() == [UNKNOWN, 0, 2, 1, 0, 4, 9]
    assert not LabelSides({"lung": (1,), "lesion": (2,)}).named
    assert not LabelSides({}).named


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / name))
    return write_raw_dataset(tmp_path / "raw")


def write_label(raw: Path, case: str, change: Any = None) -> np.ndarray:
    """A label map beside the image: 1 in a block, 2 in one voxel."""
    image = sitk.ReadImage(str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
    label = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
    a, b, c = (n // 2 for n in label.shape)
    label[a - 3 : a, b - 3 : b + 3, c - 4 : c + 4] = 1
    label[a + 2, b, c] = 2
    if change is not None:
        label = change(label)
    written = sitk.GetImageFromArray(label)
    if label.shape == image.GetSize()[::-1]:
        written.CopyInformation(image)
    (raw / "labelsTr").mkdir(exist_ok=True)
    sitk.WriteImage(written, str(raw / "labelsTr" / f"{case}.nii.gz"))
    description = json.loads((raw / "dataset.json").read_text())
    description["labels"] = {"background": 0, "left block": 1, "dot": 2}
    (raw / "dataset.json").write_text(json.dumps(description))
    return label


def preprocess(**options: Any) -> CaseStore:
    store = preprocess_dataset(NAME, make_plans(), num_processes=1, **options)["3d_lowres"]
    assert store is not None
    return store


def test_a_label_map_lies_on_its_image_and_cases_without_are_unknown(raw: Path) -> None:
    write_label(raw, "a")
    store = preprocess()
    shape = store.shape("a")[1:]
    label = store.read_labels("a", (0, 0, 0), shape)
    assert label.dtype == np.int16 and set(np.unique(label)) == {0, 1, 2}
    counts = {str(v): int((label == v).sum()) for v in (1, 2)}
    assert store.record("a")["label_voxels"] == counts
    assert store.labels() == {"left block": (1,), "dot": (2,)}
    assert "a_seg.b2nd" in store.record("a")["files"]
    # the places in mm: the block's centre is where it was drawn
    properties = store.properties("a")["image"]
    affine = np.asarray(properties["affine"])
    centre = affine[:3, :3] @ np.argwhere(label == 1).mean(axis=0) + affine[:3, 3]
    source = sitk.ReadImage(str(raw / "labelsTr" / "a.nii.gz"))
    drawn = np.argwhere(sitk.GetArrayFromImage(source) == 1).mean(axis=0)
    expected = source.TransformContinuousIndexToPhysicalPoint(tuple(drawn[::-1]))
    world = np.array([-centre[0], -centre[1], centre[2]])
    step = max(properties["spacing"])
    assert (
        np.abs(world - np.array(expected)).max() < step
        or np.abs(centre - np.array(expected)).max() < step
    )
    assert (store.read_labels("b", (0, 0, 0), (8, 8, 8)) == UNKNOWN).all()
    assert "label_voxels" not in store.record("b")
    beyond = store.read_labels("a", (-8, 0, 0), (8, 8, 8))
    assert (beyond == 0).all()


def test_a_new_label_map_makes_its_case_again_and_no_other(raw: Path) -> None:
    first = preprocess()
    before = {case[0]: first.record(case[0])["files"] for case in CASES}
    write_label(raw, "a")
    store = preprocess()
    after = {case[0]: store.record(case[0])["files"] for case in CASES}
    assert [case for case in before if before[case] != after[case]] == ["a"]
    stamp = (store.folder / "a_seg.b2nd").stat().st_mtime_ns
    preprocess()
    assert (store.folder / "a_seg.b2nd").stat().st_mtime_ns == stamp
    (store.folder / "a_seg.b2nd").unlink()
    assert preprocess().read_labels("a", (0, 0, 0), (8, 8, 8)).shape == (8, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda label: label[:-1], r"label map a\.nii\.gz has .* voxels and its image"),
        (
            lambda label: label.astype(np.float32) + 0.5,
            r"label map a\.nii\.gz has values other than whole numbers",
        ),
        (
            lambda label: -label.astype(np.int16),
            r"label map a\.nii\.gz has values other than whole numbers",
        ),
    ],
)
def test_a_label_map_that_cannot_be_right_is_named(raw: Path, change: Any, message: str) -> None:
    write_label(raw, "a", change)
    with pytest.raises(ColipriError, match=f"case a: {message}"):
        preprocess()
    store = preprocess(keep_going=True)
    assert "a" in store.manifest["failed"] and "b" in store.identifiers()


def test_label_maps_travel_in_shards(raw: Path) -> None:
    from colipri.preprocessing.store_transfer import pack_store

    write_label(raw, "a")
    store = preprocess()
    shape = store.shape("a")[1:]
    before = store.read_labels("a", (0, 0, 0), shape)
    packed = pack_store(store.folder)
    assert not (store.folder / "a_seg.b2nd").exists()
    assert np.array_equal(packed.read_labels("a", (0, 0, 0), shape), before)
    assert (packed.read_labels("b", (0, 0, 0), (8, 8, 8)) == UNKNOWN).all()
    shutil.rmtree(store.folder)
