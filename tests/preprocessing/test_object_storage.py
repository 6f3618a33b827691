"""Stores in S3, over its real interface: moved, read, failing in the middle, trained from."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Workspace
from preprocessing.s3_server import S3Server, s3_server
from preprocessing.small_dataset import CONFIGURATION, NAME, make_plans, write_raw_dataset
from preprocessing.test_shards import _content, _preprocess, packed  # noqa: F401

from colipri.common.errors import ColipriError
from colipri.preprocessing import shard_reading
from colipri.preprocessing.manifest import check_preprocessed
from colipri.preprocessing.store import CaseStore
from colipri.preprocessing.store_transfer import fetch_store, move_store, verify_store

ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}  # waits of seconds between more
URL = "s3://bucket/stores/901"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(shard_reading, "RETRY_SECONDS", (0.0, 0.0, 0.0, 0.0))
    with s3_server() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        shard_reading._file_system.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield running
    shard_reading._file_system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(workspace: Workspace, packed: None) -> CaseStore:  # noqa: F811
    write_raw_dataset(workspace.raw)
    return _preprocess()


@pytest.mark.parametrize(
    "failure", ["cut", *(pytest.param(f, marks=pytest.mark.slow) for f in ("", "500"))]
)
def test_a_store_moves_and_reads_the_same_though_requests_fail(
    failure: str, store: CaseStore, server: S3Server
) -> None:
    before = _content(store)
    rng, failed = random.Random(0), []

    def fails(method: str, path: str) -> str:
        if failure and rng.random() < 0.2:
            failed.append(path)
            return failure if method == "GET" else "500"
        return ""

    server.fails = fails
    move_store(store.folder, URL)
    assert not list(store.folder.glob("*.b2shard"))
    there = check_preprocessed(NAME, make_plans(), CONFIGURATION)
    assert _content(there) == before
    assert verify_store(store.folder) == []
    assert bool(failure) == bool(failed)
    shutil.rmtree(store.folder)
    fetch_store(URL, store.folder, with_shards=True)
    assert _content(CaseStore(store.folder)) == before


def test_a_server_that_stays_down_is_named_and_the_move_continues(
    store: CaseStore, server: S3Server, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _content(store)
    shards = []

    def fails_at_the_second_shard(method: str, path: str) -> str:
        if method == "PUT" and ".b2shard" in path and path not in shards:
            shards.append(path)
        return "500" if len(shards) > 1 else ""

    monkeypatch.setattr(shard_reading, "S3_OPTIONS", {"config_kwargs": ONE_ATTEMPT})
    server.fails = fails_at_the_second_shard
    with pytest.raises(ColipriError, match=r"writing s3://bucket/.* failed 5 times, at last with"):
        move_store(store.folder, URL)
    server.fails = lambda method, path: ""
    with pytest.raises(ColipriError, match="the store is half moved"):
        fetch_store(URL, workspace.preprocessed / "elsewhere")
    move_store(store.folder, URL)
    server.fails = lambda method, path: "cut" if method == "GET" else ""
    with pytest.raises(ColipriError, match=r"case b: reading s3://bucket/.*\.b2shard failed 5"):
        CaseStore(store.folder).read_crop("b", (0, 0, 0), (8, 8, 8))
    asked = len(server.requests)
    with pytest.raises(ColipriError):
        CaseStore(store.folder).read_crop("b", (0, 0, 0), (8, 8, 8))
    assert len(server.requests) - asked <= 15  # the attempts of other packages do not multiply ours
    server.fails = lambda method, path: ""
    assert _content(CaseStore(store.folder)) == before


def test_a_bucket_that_does_not_exist_is_named(store: CaseStore, server: S3Server) -> None:
    with pytest.raises(ColipriError, match=r"s3://nowhere/901"):
        move_store(store.folder, "s3://nowhere/901")
    assert list(store.folder.glob("*.b2shard"))


@pytest.mark.slow
def test_another_machine_trains_from_what_it_fetched(
    server: S3Server,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tiny_dataset import install_example_plans, write_tiny_dataset

    from colipri.run.preprocess import main as preprocess
    from colipri.run.store import main as store_command
    from colipri.run.train import main as train

    write_tiny_dataset(workspace.raw)
    install_example_plans(workspace.preprocessed)
    folder = workspace.preprocessed / "Dataset950_Tiny"
    shutil.copy(workspace.raw / "Dataset950_Tiny" / "dataset.json", folder)
    (folder / "dataset_fingerprint.json").write_text('{"cases": {}}')
    assert preprocess(["-d", "950", "-np", "1"]) == 0
    run = ["950", CONFIGURATION, "0", "-device", "cpu", "-num_workers", "0"]
    run += ["--epochs", "1", "--iterations_per_epoch", "2"]
    assert train(run) == 0
    weights = (next(workspace.results.rglob("checkpoint_final.pth"))).read_bytes()
    assert store_command(["move", "950", CONFIGURATION, URL, "--keep"]) == 0
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / "second" / name))
    (tmp_path / "second" / "raw").mkdir(parents=True)
    assert store_command(["fetch", "950", CONFIGURATION, URL]) == 0
    second = tmp_path / "second" / "preprocessed" / "Dataset950_Tiny"
    names = {path.name for path in second.iterdir() if path.is_file()}
    assert names == {
        "colipriPlans.json",
        "dataset.json",
        "dataset_fingerprint.json",
        "splits_final.json",
    }
    capsys.readouterr()
    assert train(run) == 0
    (again,) = (tmp_path / "second" / "results").rglob("checkpoint_final.pth")
    assert again.read_bytes() == weights or _same_weights(again.read_bytes(), weights)

    (second / "splits_final.json").write_text("[]")
    assert store_command(["fetch", "950", CONFIGURATION, URL]) == 1
    assert "splits_final.json differs from the one in s3://" in capsys.readouterr().err
    assert store_command(["fetch", "951", CONFIGURATION, URL]) == 1
    assert "holds a store of Dataset950_Tiny, not of 951" in capsys.readouterr().err
    (second / "splits_final.json").unlink()
    second.rename(second.with_name("Dataset950_Other"))
    assert store_command(["fetch", "950", CONFIGURATION, URL]) == 1
    assert "belongs to Dataset950_Other here" in capsys.readouterr().err


def _same_weights(first: bytes, second: bytes) -> bool:
    import io

    import torch

    one, other = (
        torch.load(io.BytesIO(content), weights_only=True)["network_weights"]
        for content in (first, second)
    )
    return all(torch.equal(one[key], value) for key, value in other.items())
