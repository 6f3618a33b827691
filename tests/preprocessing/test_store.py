"""Reading crops, reports and metadata from a store that preprocessing made."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import Workspace
from preprocessing.small_dataset import make_plans, write_raw_dataset

from colipri.common.errors import ColipriError
from colipri.preprocessing.files import compress, open_array
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.preprocessing.store import CaseStore


@pytest.fixture
def store(workspace: Workspace) -> CaseStore:
    write_raw_dataset(workspace.raw)
    made = preprocess_dataset(901, make_plans(), num_processes=1)["3d_lowres"]
    assert made is not None
    return made


def test_metadata_and_reports(store: CaseStore) -> None:
    assert store.identifiers() == list("abcdefg")
    record = store.record("c")
    assert (record["subject"], record["study"], record["split"]) == ("p2", "s2", "")
    assert record["findings"] == {"effusion": None} and record["has_report"]
    report = store.report("a")
    assert report is not None
    assert report.with_polarity("positive") == ["Small left effusion in s1."]
    assert report.with_polarity("negative") == ["No pneumothorax."]
    assert store.report("d") is None and not store.record("d")["has_report"]
    properties = store.properties("a")
    assert properties["image"]["orientation"] == "SAR"
    assert properties["image"]["original"]["original_spacing"] == pytest.approx([4, 5, 6])
    assert properties["source_images"] == ["a_0000.nii.gz"]


def test_crops_are_the_array(store: CaseStore) -> None:
    shape = store.shape("b")
    whole = open_array(store.folder / "b.b2nd")[...]
    assert whole.shape == shape and whole.dtype == np.int16
    image, body = store.read_crop("b", (3, 2, 5), (8, 16, 8))
    assert np.array_equal(image, whole[:, 3:11, 2:18, 5:13])
    assert body.shape == (1, 2, 1) and body.dtype == bool
    padded, body = store.read_crop("b", (-16, -8, -8), (16, 24, 24))
    assert (padded == -1024).all() and not body.any()


def test_body_tokens_hold_all_tissue_and_leave_out_padding(store: CaseStore) -> None:
    image, body = store.read_crop("a", (-5, -3, -7), (32, 40, 56))
    blocks = image[0].reshape(4, 8, 5, 8, 7, 8)
    brightest = blocks.max(axis=(1, 3, 5))
    assert body[brightest > -500].all()
    assert not body[brightest == -1024].any()
    assert 0 < body.mean() < 1


def test_size_must_be_whole_tokens(store: CaseStore) -> None:
    with pytest.raises(ColipriError, match="not a multiple of the token patch"):
        store.read_crop("a", (0, 0, 0), (8, 12, 8))


def test_unknown_case_and_damaged_file(store: CaseStore) -> None:
    with pytest.raises(ColipriError, match="no case 'x'"):
        store.read_crop("x", (0, 0, 0), (8, 8, 8))
    path = store.folder / "a.b2nd"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    path.write_bytes(bytes(content[: len(content) // 2]))
    with pytest.raises(ColipriError, match=r"case a: .*a\.b2nd is missing or damaged"):
        store.read_crop("a", (0, 0, 0), (8, 8, 8))
    path.unlink()
    with pytest.raises(ColipriError, match=r"a\.b2nd is missing or damaged"):
        store.read_crop("a", (0, 0, 0), (8, 8, 8))


def test_a_pickle_is_the_folder(store: CaseStore) -> None:
    assert store.report("a") is not None  # everything is loaded
    content = pickle.dumps(store)
    assert len(content) < 500
    assert pickle.loads(content).identifiers() == store.identifiers()  # noqa: S301


def test_a_folder_without_manifest_is_not_read(tmp_path: Path) -> None:
    store = CaseStore(tmp_path)  # costs nothing and checks nothing
    with pytest.raises(ColipriError, match="run colipri_preprocess again"):
        store.identifiers()


def test_damaged_reports_file_names_the_line(store: CaseStore) -> None:
    path = store.folder / "reports.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{oops", *lines[1:]]))
    with pytest.raises(ColipriError, match=r"reports\.jsonl, line 2"):
        CaseStore(store.folder).report("a")


def test_equal_arrays_give_equal_bytes_and_chunks_fit_the_patch(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (1, 100, 90, 80)).astype(np.int16)
    content = compress(array, (32, 32, 32))
    assert content == compress(array.copy(order="F"), (32, 32, 32))
    (tmp_path / "x.b2nd").write_bytes(content)
    stored = open_array(tmp_path / "x.b2nd")
    assert np.array_equal(stored[...], array)
    assert max(stored.chunks[1:]) <= 48  # nnU-Net's rule: at most 1.5 patches per axis
