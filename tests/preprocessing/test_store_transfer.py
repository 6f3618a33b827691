"""Stores on other disks and on object storage: moved whole, read in ranges, outages survived."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import Workspace
from fsspec.implementations.memory import MemoryFileSystem
from preprocessing.small_dataset import CONFIGURATION, NAME, make_plans, write_raw_dataset
from preprocessing.test_shards import _content, _folder, _preprocess, packed  # noqa: F401

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.preprocessing import shard_reading
from colipri.preprocessing.files import compress
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.shard_reading import RemoteArray, RemoteShard
from colipri.preprocessing.shards import _chunks
from colipri.preprocessing.store import CaseStore
from colipri.preprocessing.store_transfer import fetch_store, move_store, verify_store
from colipri.run.store import build_parser, main


class Flaky(MemoryFileSystem):
    """Object storage whose connection breaks as often as a test asks for."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012 - as MemoryFileSystem has it
    pseudo_dirs = [""]  # noqa: RUF012
    broken = 0
    requests: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _break(self) -> None:
        if Flaky.broken:
            Flaky.broken -= 1
            raise ConnectionResetError("connection reset by peer")

    def cat_file(self, path, start=None, end=None, **options):
        self._break()
        content = super().cat_file(path, start=start, end=end, **options)
        Flaky.requests.append((path, start, end))
        return content

    def put_file(self, lpath, rpath, **options):
        self._break()
        return super().put_file(lpath, rpath, **options)


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.broken, Flaky.requests = 0, []
    monkeypatch.setattr(shard_reading, "RETRY_SECONDS", (0.0, 0.0))
    return "flaky://bucket/101"


@pytest.fixture
def store(workspace: Workspace, packed: None) -> CaseStore:  # noqa: F811
    write_raw_dataset(workspace.raw)
    return _preprocess()


@pytest.mark.parametrize("where", ["folder", "object storage"])
def test_a_moved_store_reads_the_same_from_its_new_place(
    where: str, store: CaseStore, url: str, tmp_path: Path
) -> None:
    before = _content(store)
    target = url if where == "object storage" else str(tmp_path / "big disk")
    move_store(store.folder, target)
    assert not list(store.folder.glob("*.b2shard"))
    there = check_preprocessed(NAME, make_plans(), CONFIGURATION)
    assert _content(there) == before
    assert verify_store(store.folder) == []
    move_store(store.folder, target)  # nothing is left to do


def test_an_outage_is_survived_and_a_long_one_is_named(store: CaseStore, url: str) -> None:
    before = _content(store)["b"]
    Flaky.broken = 2
    move_store(store.folder, url)
    Flaky.broken = 2
    assert _content(CaseStore(store.folder))["b"] == before
    Flaky.broken = 10**6
    with pytest.raises(ColipriError, match=r"case b: reading flaky://bucket/101/shard-.* failed 3"):
        CaseStore(store.folder).read_crop("b", (0, 0, 0), (8, 8, 8))


def test_a_move_that_stops_in_the_middle_is_named_and_continued(
    store: CaseStore, url: str, workspace: Workspace
) -> None:
    before = _content(store)
    shards = len(list(store.folder.glob("*.b2shard")))
    put, done = Flaky.put_file, []

    def breaks_down(self, source, target, **options):
        if len(done) == 2:
            raise ConnectionResetError("connection reset by peer")
        done.append(source)
        return put(self, source, target, **options)

    Flaky.put_file = breaks_down
    try:
        with pytest.raises(ColipriError, match=r"writing flaky://.* failed 3 times"):
            move_store(store.folder, url)
    finally:
        Flaky.put_file = put
    assert _content(check_preprocessed(NAME, make_plans(), CONFIGURATION)) == before
    assert len(list(store.folder.glob("*.b2shard"))) == shards  # nothing was let go
    with pytest.raises(ColipriError, match="no manifest"):
        fetch_store(url, workspace.preprocessed / "elsewhere")
    arrived = set(Flaky.store)
    move_store(store.folder, url)
    assert arrived < set(Flaky.store)
    assert _content(CaseStore(store.folder)) == before


def test_a_place_that_lost_a_file_is_named(store: CaseStore, url: str, tmp_path: Path) -> None:
    move_store(store.folder, url)
    lost = next(path for path in Flaky.store if path.endswith(".b2shard"))
    del Flaky.store[lost]
    with pytest.raises(ColipriError, match=rf"half moved: 1 of \d+ .*{lost.split('/')[-1]}"):
        fetch_store(url, tmp_path / "there")
    (problem,) = verify_store(store.folder)
    assert lost.split("/")[-1] in problem and "cases a" in problem


@pytest.mark.parametrize("with_shards", [False, True])
def test_another_machine_uses_the_store_from_there(
    with_shards: bool, store: CaseStore, url: str, workspace: Workspace
) -> None:
    before = _content(store)
    move_store(store.folder, url, keep=True)
    assert list(store.folder.glob("*.b2shard"))
    shutil.rmtree(store.folder)
    fetch_store(url, store.folder, with_shards)
    there = check_preprocessed(NAME, make_plans(), CONFIGURATION)
    assert _content(there) == before
    assert bool(list(store.folder.glob("*.b2shard"))) == with_shards
    Flaky.requests.clear()
    _content(there)
    assert bool(Flaky.requests) != with_shards


def test_another_store_is_not_overwritten(store: CaseStore, url: str) -> None:
    Flaky().pipe_file("/bucket/101/manifest.json", b'{"other": 1}')
    with pytest.raises(ColipriError, match="holds another store"):
        move_store(store.folder, url)


def test_damage_is_found_before_it_is_moved_and_by_verification(store: CaseStore, url: str) -> None:
    shard = sorted(store.folder.glob("*.b2shard"))[-1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    (problem,) = verify_store(store.folder)
    assert shard.name in problem and "is damaged" in problem and "(cases " in problem
    with pytest.raises(ColipriError, match="is damaged"):
        move_store(store.folder, url)
    assert list(store.folder.glob("*.b2shard"))


def test_preprocessing_goes_on_after_a_move(
    store: CaseStore, url: str, workspace: Workspace
) -> None:
    move_store(store.folder, url)
    report = workspace.raw / NAME / "reportsTr" / "a.txt"
    report.write_text("Findings: Normal heart. No effusion whatsoever.")
    again = _preprocess()
    assert "whatsoever" in again.report("a").text
    again.read_crop("a", (0, 0, 0), (8, 8, 8))
    assert not list(store.folder.glob("*.b2shard"))


def test_a_crop_fetches_the_chunks_that_it_overlaps_and_no_others(url: str) -> None:
    volume = np.random.default_rng(0).integers(-1000, 1000, (1, 96, 96, 96)).astype(np.int16)
    frame = compress(volume, (32, 32, 32))
    Flaky().pipe_file("/bucket/s", b"x" * 7 + frame)
    place = _chunks(frame)
    assert len(place["pieces"]) == 8
    array = RemoteArray(RemoteShard("flaky://bucket/s", "a"), 7, place)
    rng = np.random.default_rng(1)
    for _ in range(10):
        start = rng.integers(0, 64, 3)
        index = (slice(None), *(slice(int(s), int(s) + 32) for s in start))
        assert np.array_equal(array[index], volume[index])
    assert np.array_equal(array[...], volume)
    Flaky.requests.clear()
    _ = array[:, 0:8, 0:8, 0:8]
    assert sum(end - start for _, start, end in Flaky.requests) < len(frame) / 7


def test_a_package_that_is_missing_is_named(
    store: CaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ColipriError, match=r"pip install 'colipri\[object-storage\]'"):
        move_store(store.folder, "gs://bucket/101")
    with pytest.raises(ColipriError, match="write for example s3://"):
        move_store(store.folder, "nonsense://bucket/101")


def test_the_command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_raw_dataset(workspace.raw)
    store = _preprocess()
    before = _content(store)
    atomic_write_json(store.folder.parent / "colipriPlans.json", make_plans().raw)
    arguments = ["901", CONFIGURATION]
    assert main(["verify", *arguments]) == 0
    assert main(["pack", *arguments]) == 0
    assert _content(CaseStore(store.folder)) == before
    assert not list(store.folder.glob("*.b2nd"))
    assert main(["move", *arguments]) == 1
    assert "needs a folder or URL" in capsys.readouterr().err
    assert main(["move", *arguments, str(tmp_path / "there")]) == 0
    assert "Next: colipri_train 901 3d_lowres 0" in capsys.readouterr().out
    assert main(["verify", *arguments]) == 0
    next((tmp_path / "there").glob("*.b2shard")).unlink()
    assert main(["verify", *arguments]) == 1
    text = capsys.readouterr()
    assert "cannot be read" in text.out and "1 files of" in text.err
    assert "s3://bucket" in build_parser().format_help()
