"""Stores in shards: the same content in few files, resumable, and whole or not read at all."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Workspace
from preprocessing.small_dataset import (
    CONFIGURATION,
    NAME,
    folder_bytes,
    make_plans,
    phantom,
    write_image,
    write_raw_dataset,
)

from colipri.common.errors import ColipriError
from colipri.dataloading.splits import load_split
from colipri.preprocessing import packing, shards
from colipri.preprocessing.line_table import LineTable, write_lines
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.preprocessing.store import CaseStore


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    return write_raw_dataset(workspace.raw)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is large, and three cases fill a shard."""
    monkeypatch.setattr(packing, "PACK_FROM", 1)
    monkeypatch.setattr(packing, "SHARD_BYTES", 25_000)


def _folder(workspace: Workspace) -> Path:
    return workspace.preprocessed / NAME / "colipriPlans_3d_lowres"


def _preprocess(**options: object) -> CaseStore:
    store = preprocess_dataset(901, make_plans(), num_processes=1, **options)[CONFIGURATION]
    assert store is not None
    return store


def _content(store: CaseStore) -> dict[str, object]:
    """All that readers get of a store."""
    found = {}
    for case in store.identifiers():
        image, body = store.read_crop(case, (-3, 1, 2), (16, 16, 24))
        report = store.report(case)
        keys = ("subject", "study", "split", "findings", "has_report", "shape", "body_fraction")
        record = {key: store.record(case)[key] for key in keys}
        properties = {k: v for k, v in store.properties(case).items() if k != "place"}
        text = None if report is None else report.to_json()
        found[case] = (image.tobytes(), body.tobytes(), text, record, properties)
    return found


@pytest.fixture
def single_files(raw: Path, workspace: Workspace) -> dict[str, object]:
    """What the store of single files holds."""
    content = _content(_preprocess())
    shutil.rmtree(_folder(workspace))
    return content


def test_a_store_in_shards_holds_what_single_files_hold(
    single_files: dict[str, object], packed: None, workspace: Workspace
) -> None:
    store = _preprocess()
    assert _content(store) == single_files
    assert load_split(store, "all")[0] == list("abcdef")
    names = {path.suffix for path in _folder(workspace).iterdir()}
    assert names == {".json", ".jsonl", ".b2shard"}
    files = list(_folder(workspace).iterdir())
    assert len(files) == 3 + 2 * len(list(_folder(workspace).glob("*.b2shard"))) < 3 * 7
    assert check_preprocessed(NAME, make_plans(), CONFIGURATION).identifiers() == list("abcdefg")


def test_shards_do_not_depend_on_the_number_of_processes(
    raw: Path, packed: None, workspace: Workspace
) -> None:
    _preprocess()
    once = folder_bytes(_folder(workspace))
    shutil.rmtree(_folder(workspace))
    preprocess_dataset(901, make_plans(), num_processes=2)
    assert folder_bytes(_folder(workspace)) == once


def test_nothing_changed_writes_no_shard_again(
    raw: Path, packed: None, workspace: Workspace
) -> None:
    _preprocess()
    times = {path: path.stat().st_mtime_ns for path in _folder(workspace).glob("shard-*")}
    _preprocess()
    assert times == {path: path.stat().st_mtime_ns for path in _folder(workspace).glob("shard-*")}


def test_a_changed_image_or_report_goes_into_a_new_shard(
    raw: Path, packed: None, workspace: Workspace
) -> None:
    before = _content(_preprocess())
    write_image(raw / "imagesTr" / "b_0000.nii.gz", phantom(77))
    (raw / "reportsTr" / "a.txt").write_text("Findings: Normal heart. No effusion whatsoever.")
    store = _preprocess()
    after = _content(store)
    assert {case for case in before if before[case] != after[case]} == {"a", "b"}
    assert "whatsoever" in store.report("a").text
    assert before["a"][:2] == after["a"][:2] and before["b"][0] != after["b"][0]
    assert not list(_folder(workspace).glob("*.b2nd"))


@pytest.mark.parametrize("when", ["before the records", "before the single files are removed"])
def test_a_run_that_is_killed_while_it_packs_continues(
    when: str,
    single_files: dict[str, object],
    packed: None,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "before the records":
            patch.setattr(shards, "atomic_write_bytes", killed)
        else:
            patch.setattr(packing, "_remove_staged", killed)
        with pytest.raises(KeyboardInterrupt):
            _preprocess()
    with pytest.raises(ColipriError, match="not finished"):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)
    store = _preprocess()
    assert _content(store) == single_files
    assert not list(_folder(workspace).glob("*.b2nd"))


def test_a_store_of_single_files_is_packed_when_it_has_grown(
    single_files: dict[str, object],
    raw: Path,
    workspace: Workspace,
    request: pytest.FixtureRequest,
) -> None:
    _preprocess()
    assert len(list(_folder(workspace).glob("*.b2nd"))) == 14
    request.getfixturevalue("packed")
    assert _content(_preprocess()) == single_files
    assert not list(_folder(workspace).glob("*.b2nd"))


def test_parts_of_a_job_array_pack_their_own_cases(
    single_files: dict[str, object], packed: None
) -> None:
    assert preprocess_dataset(901, make_plans(), num_processes=1, num_parts=2) == {
        CONFIGURATION: None
    }
    assert _content(_preprocess(num_parts=2, part_id=1)) == single_files


def test_broken_cases_are_left_out(raw: Path, packed: None) -> None:
    (raw / "imagesTr" / "c_0000.nii.gz").write_bytes(b"nothing")
    store = _preprocess(keep_going=True)
    assert store.identifiers() == list("abdefg") and list(store.manifest["failed"]) == ["c"]


def test_a_half_moved_store_is_named_before_it_is_read(
    raw: Path, packed: None, workspace: Workspace
) -> None:
    store = _preprocess()
    shard = sorted(store.folder.glob("*.b2shard"))[1]
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ColipriError, match=rf"moved or copied in part: 1 of \d+ .*{shard.name}"):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)
    with pytest.raises(ColipriError, match=r"moved or copied in part"):
        _content(CaseStore(store.folder))
    shard.write_bytes(whole[:-1])
    with pytest.raises(ColipriError, match="missing or cut off"):
        check_preprocessed(NAME, make_plans(), CONFIGURATION)
    shard.write_bytes(whole)
    check_preprocessed(NAME, make_plans(), CONFIGURATION)


def test_a_damaged_shard_names_case_and_file(raw: Path, packed: None) -> None:
    store = _preprocess()
    for path in store.folder.glob("*.b2shard"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ColipriError, match=r"case a: .*b2shard is missing or damaged"):
        store.read_crop("a", (0, 0, 0), (8, 8, 8))


def test_a_damaged_case_is_not_packed(raw: Path, workspace: Workspace) -> None:
    _preprocess()
    path = _folder(workspace) / "b.b2nd"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    packer = packing.Packer(_folder(workspace), list("abcdefg"), 10**9)
    for case in "abcdefg":
        packer.finished(case)
    with pytest.raises(ColipriError, match=r"case b: .*b\.b2nd is damaged"):
        packer.finish()
    assert not list(_folder(workspace).glob("shard-*"))


def test_workers_share_the_table_and_keep_nothing(raw: Path, packed: None) -> None:
    store = _preprocess()
    assert store.record("a") is store.record("a")  # this process goes over all cases
    assert len(pickle.dumps(store)) < 500
    there = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert there.record("a").items() > store.record("a").items()  # with the places of its arrays
    assert there.manifest["cases"]._known == {}


def test_the_table_finds_every_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    alphabet = list('ab"\\é中 -_.')
    names = {"".join(rng.choice(alphabet, rng.integers(1, 6))) for _ in range(300)}
    write_lines(tmp_path / "t.jsonl", ({"number": n, "case": name} for n, name in enumerate(names)))
    table = LineTable(tmp_path / "t.jsonl")
    assert len(table) == len(names) and set(table) == names
    assert all(table[name]["number"] == number for number, name in enumerate(names))
    absent = {name + "a" for name in names} - names
    assert not any(name in table for name in absent)
    write_lines(tmp_path / "none.jsonl", [])
    assert list(LineTable(tmp_path / "none.jsonl")) == []
    with pytest.raises(ColipriError, match="cannot be read"):
        LineTable(tmp_path / "absent.jsonl")


def test_a_report_that_is_not_where_it_was_is_an_error(raw: Path, packed: None) -> None:
    store = _preprocess()
    path = store.folder / "reports.jsonl"
    path.write_bytes(b"  " + path.read_bytes()[:-2])
    with pytest.raises(ColipriError, match=r"case b: .*reports\.jsonl is damaged at byte"):
        CaseStore(store.folder).report("b")
