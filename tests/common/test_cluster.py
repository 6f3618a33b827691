"""Fingerprint and preprocessing on the workers of a real dask cluster (on this machine)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from parallel_work import die, slow_square
from tiny_model import DATASET, Prepared, tiny, tiny_folders

from colipri.common.atomic import read_json
from colipri.common.cluster import cluster
from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel
from colipri.run.extract_fingerprint import main as extract_fingerprint
from colipri.run.preprocess import main as preprocess

__all__ = ["tiny", "tiny_folders"]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, each a process of its own."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "temporary-directory": str(tmp_path_factory.mktemp("dask")),
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as here,
    ):
        yield here.scheduler_address


def test_problems_belong_to_their_items_and_the_others_go_on(scheduler: str) -> None:
    with cluster("dask", scheduler):
        outcomes = {o.item: o for o in run_parallel(slow_square, range(9), 1, "test")}
    assert {item: outcome.result for item, outcome in outcomes.items()} == {
        item: None if item == 3 else item * item for item in range(9)
    }
    assert outcomes[3].problem == "three is refused"


def test_a_dead_worker_is_one_clear_error(scheduler: str) -> None:
    with (
        pytest.raises(ColipriError, match="dask workers died"),
        cluster("dask", scheduler),
    ):
        list(run_parallel(die, [1], 1, "test"))


def test_the_commands_write_what_they_write_without_a_cluster(
    scheduler: str, tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = tmp_path / "preprocessed"
    prepared.mkdir()
    (prepared / DATASET).mkdir()
    shutil.copy(tiny.preprocessed / DATASET / "colipriPlans.json", prepared / DATASET)
    monkeypatch.setenv("colipri_preprocessed", str(prepared))
    there = ["-d", "950", "--backend", "dask", "--scheduler", scheduler]
    assert extract_fingerprint(there) == 0
    assert preprocess([*there, "-c", "3d_lowres"]) == 0
    here = tmp_path / "here"
    monkeypatch.setenv("colipri_preprocessed", str(here))
    assert extract_fingerprint(["-d", "950", "-np", "1"]) == 0
    one, other = (
        read_json(folder / DATASET / "dataset_fingerprint.json") for folder in (prepared, here)
    )
    assert one == other
    (done,) = (prepared / DATASET).glob("*3d_lowres*")
    reference = tiny.preprocessed / DATASET / done.name
    names = sorted(path.relative_to(reference) for path in reference.rglob("*.b2nd"))
    assert names and names == sorted(path.relative_to(done) for path in done.rglob("*.b2nd"))
    import blosc2

    for name in names:
        first, second = (blosc2.open(str(folder / name))[:] for folder in (reference, done))
        assert np.array_equal(first, second), name


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("dask", None), "needs the --scheduler"),
        (("local", "tcp://127.0.0.1:1"), "add --backend dask"),
        (("dask", "/nowhere/scheduler.json"), "no dask scheduler answers at /nowhere"),
        (("dask", "tcp://127.0.0.1:9"), "no dask scheduler answers at tcp"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[str, str | None], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colipri.common.cluster._WAIT_SECONDS", 0.5)
    with pytest.raises(ColipriError, match=part), cluster(*options):
        pass
