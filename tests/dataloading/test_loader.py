"""Batches from workers: the same as without, resumable, and failures that name the case."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataloading.hand_made_store import PatchOnly, write_store

from colipri.common.errors import ColipriError
from colipri.dataloading.dataset import ColipriDataset
from colipri.dataloading.loader import make_loader
from colipri.objectives.batch import Batch, Sample
from colipri.preprocessing.store import CaseStore

CASES = [f"case{number}" for number in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    rng = np.random.default_rng(0)
    return write_store(
        tmp_path / "Dataset001_Test" / "c",
        {
            case: {
                "array": rng.integers(-1000, 1000, (1, 20, 24, 28)).astype(np.int16),
                "report": f"Nodule of {number + 3} mm. No effusion." if number else None,
            }
            for number, case in enumerate(CASES)
        },
    )


def _dataset(store: CaseStore, training: bool = True) -> ColipriDataset:
    return ColipriDataset(store, PatchOnly([16, 16, 16]), training, seed=1)


def _same(first: Batch, second: Batch) -> bool:
    tensors = ("image", "body", "has_report")
    lists = ("caption", "case", "study", "text_key", "names_side")
    return all(torch.equal(getattr(first, n), getattr(second, n)) for n in tensors) and all(
        getattr(first, n) == getattr(second, n) for n in lists
    )


def test_batch_layout(store: CaseStore) -> None:
    batch = next(iter(make_loader(_dataset(store), CASES, 4, num_workers=0)))
    assert batch.image.shape == (4, 1, 16, 16, 16)
    assert batch.body.shape == (4, 8)
    assert batch.has_report.tolist() == [case != "case0" for case in batch.case]
    assert all(batch.caption[row] and batch.study[row] for row in batch.paired_rows)


def test_workers_and_resuming_change_nothing(store: CaseStore) -> None:
    here = list(itertools.islice(make_loader(_dataset(store), CASES, 3, num_workers=0), 7))
    workers = make_loader(_dataset(store), CASES, 3, num_workers=2)
    there = list(itertools.islice(workers, 4))  # the workers have read ahead of that
    assert all(_same(a, b) for a, b in zip(here, there, strict=False))
    assert workers.delivered == 4
    resumed = make_loader(_dataset(store), CASES, 3, position=4, num_workers=0)
    assert all(_same(a, b) for a, b in zip(here[4:], resumed, strict=False))


def test_validation_goes_once_through_all_cases(store: CaseStore) -> None:
    batches = list(make_loader(_dataset(store, training=False), CASES, 4, num_workers=0))
    assert [batch.case for batch in batches] == [CASES[:4], CASES[4:]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_case_is_named(store: CaseStore, workers: int) -> None:
    path = store.folder / "case3.b2nd"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ColipriError, match=r"case3.*damaged") as caught:
        list(make_loader(_dataset(store, training=False), CASES, 2, num_workers=workers))
    assert "read_crop" in str(caught.value.__cause__)  # the worker's traceback came along


class _DeadlyDataset(ColipriDataset):
    """Kills its own process at case4, as the kernel does when memory is short."""

    def load(self, key: Any) -> Sample:
        if key.case == "case4":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(key)


def test_a_dead_worker_is_an_error(store: CaseStore) -> None:
    dataset = _DeadlyDataset(store, PatchOnly([16, 16, 16]), False, 1)
    with pytest.raises(ColipriError, match="loader process died"):
        list(make_loader(dataset, CASES, 2, num_workers=1))


def test_texts_are_the_same_everywhere_and_images_where_they_are_needed(store: CaseStore) -> None:
    def batches(rows_here: Any = None, position: int = 0) -> list[Batch]:
        loader = make_loader(
            _dataset(store), CASES, 3, position, num_workers=0, rows_here=rows_here
        )
        return list(itertools.islice(loader, 3))

    whole = batches()
    for rank in range(2):
        part = batches(lambda keys, rank=rank: range(rank, len(keys), 2))
        assert part[0].image_row is None  # the first batch is read whole
        for one, all_of_it in zip(part[1:], whole[1:], strict=True):
            for name in ("caption", "names_side", "case", "study", "text_key"):
                assert getattr(one, name) == getattr(all_of_it, name)
            for row, place in enumerate(one.image_row):
                assert (place >= 0) == (row % 2 == rank)
                if place >= 0:
                    assert torch.equal(one.image[place], all_of_it.image[row])
                    assert torch.equal(one.body[place], all_of_it.body[row])
    nothing = batches(lambda keys: (), position=1)[0]
    assert nothing.image_row == [-1] * 3 and nothing.image.numel() == 0
