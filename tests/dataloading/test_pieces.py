"""Batches in pieces: bounded shared memory, the same batches, put together ahead of time."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dataloading.hand_made_store import PatchOnly, write_store
from dataloading.test_loader import _same

from colipri.dataloading import pieces
from colipri.dataloading.ahead import one_ahead
from colipri.dataloading.dataset import ColipriDataset
from colipri.dataloading.loader import Collate, make_loader
from colipri.dataloading.pieces import (
    PIECE_BYTES,
    PieceSampler,
    Transport,
    assemble,
    choose_transport,
    from_pipe,
    to_pipe,
)
from colipri.dataloading.sampler import SampleKey

CASES = [f"case{number}" for number in range(5)]
SCAN = 2 * 192**3


@pytest.fixture
def dataset(tmp_path: Path) -> ColipriDataset:
    rng = np.random.default_rng(0)
    cases = {
        case: {
            "array": rng.integers(-1000, 1000, (1, 20, 24, 28)).astype(np.int16),
            "report": f"Left nodule of {number + 3} mm. No effusion.",
        }
        for number, case in enumerate(CASES)
    }
    store = write_store(tmp_path / "Dataset001_Test" / "c", cases)
    configuration = PatchOnly([16, 16, 16], augmentation={"flip_probability": 0.5})
    return ColipriDataset(store, configuration, True, seed=1)


def shared_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(
        pieces, "os", SimpleNamespace(environ={}, statvfs=lambda _: _State(free)), raising=True
    )


class _State:
    def __init__(self, free: int) -> None:
        self.f_bavail, self.f_frsize = free, 1


def test_what_is_on_its_way_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shared_memory(monkeypatch, 64 * 2**30)
    roomy = choose_transport(SCAN, 8)
    assert roomy == Transport(PIECE_BYTES // SCAN)
    assert 8 * 3 * roomy.images * SCAN < 1.5 * 2**30  # a step of 64 scans read ahead: 14 GB
    shared_memory(monkeypatch, 512 * 2**20)
    assert choose_transport(SCAN, 8) == Transport(1)
    assert choose_transport(16**3 * 2, 0) == Transport(PIECE_BYTES // (16**3 * 2))


def test_docker_with_64_mb_of_shared_memory_uses_pipes_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared_memory(monkeypatch, 64 * 2**20)
    with caplog.at_level("INFO", logger="colipri"):
        assert choose_transport(SCAN, 8) == Transport(1, pipes=True)
    assert "Images come through pipes" in caplog.text and "--shm-size" in caplog.text
    assert not choose_transport(SCAN, 1).pipes  # one worker fits


def test_processes_of_a_machine_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    shared_memory(monkeypatch, 512 * 2**20)
    monkeypatch.setitem(pieces.os.environ, "LOCAL_WORLD_SIZE", "8")
    assert choose_transport(SCAN, 8).pipes


def test_pieces_hold_the_texts_of_a_step_and_then_the_images_that_are_needed() -> None:
    batch = [SampleKey(f"c{n}", n, image=n != 2) for n in range(6)]
    sampler = PieceSampler([batch], 2)
    texts, *images = sampler
    assert [key.case for key in texts] == [f"c{n}" for n in range(6)]
    assert not any(key.image for key in texts) and all(key.text for key in texts)
    assert [[key.case for key in piece] for piece in images] == [["c0", "c1"], ["c3", "c4"], ["c5"]]
    assert sampler.rows == deque([[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("images", [1, 2, 100])
def test_batches_do_not_depend_on_the_pieces(dataset: ColipriDataset, images: int) -> None:
    whole = list(itertools.islice(make_loader(dataset, CASES, 4, num_workers=0), 5))
    keys = [
        batch for batch, _ in zip(make_loader(dataset, CASES, 4).batches, range(5), strict=False)
    ]
    sampler, collate = PieceSampler(keys, images), Collate()
    loaded = (collate([dataset[key] for key in piece]) for piece in sampler)
    there = list(assemble(loaded, sampler.rows, pin_memory=False))
    assert len(there) == 5 and all(_same(a, b) for a, b in zip(whole, there, strict=True))


def test_an_image_is_mirrored_with_its_text_though_both_are_read_apart(
    dataset: ColipriDataset,
) -> None:
    sides = set()
    for number in range(8):
        key = SampleKey("case1", number)
        whole = dataset.load(key)
        text, image = (
            dataset.load(key._replace(image=False)),
            dataset.load(key._replace(text=False)),
        )
        assert text.caption == whole.caption and torch.equal(image.image, whole.image)
        assert torch.equal(image.body, whole.body)
        sides.add("Right" in whole.report.text)
    assert sides == {True, False}


def test_batches_through_pipes_are_the_same_and_use_no_shared_memory(
    dataset: ColipriDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = list(itertools.islice(make_loader(dataset, CASES, 4, num_workers=0), 3))
    monkeypatch.setattr(
        "colipri.dataloading.loader.choose_transport", lambda *_: Transport(1, pipes=True)
    )
    there = list(itertools.islice(make_loader(dataset, CASES, 4, num_workers=1), 3))
    assert all(_same(a, b) for a, b in zip(here, there, strict=True))
    message = to_pipe(here[0])
    assert not any(isinstance(value, torch.Tensor) for value in vars(message).values())
    assert _same(from_pipe(message), here[0])


def test_one_item_is_made_ahead_and_no_more() -> None:
    made, go_on = [], threading.Semaphore(0)

    def items() -> Any:
        for number in range(5):
            made.append(number)
            go_on.release()
            yield number

    iterator = one_ahead(items())
    assert next(iterator) == 0
    go_on.acquire(), go_on.acquire()
    assert made == [0, 1]  # the second is there before it is asked for, the third is not begun
    assert list(iterator) == [1, 2, 3, 4]


def test_errors_of_the_thread_are_raised_where_batches_are_taken() -> None:
    closed = []

    def items() -> Any:
        try:
            yield 0
            raise ValueError("case3 is damaged")
        finally:
            closed.append(os.getpid())

    iterator = one_ahead(items())
    assert next(iterator) == 0
    with pytest.raises(ValueError, match="case3"):
        next(iterator)
    assert closed


def test_closing_ends_the_thread() -> None:
    iterator = one_ahead(iter(itertools.count()))
    assert next(iterator) == 0
    iterator.close()
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def test_reading_ahead_leaves_the_training_steps_random_numbers_alone(
    dataset: ColipriDataset,
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(make_loader(dataset, CASES, 4, num_workers=0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_images_arrive_in_pinned_memory_where_it_is_asked_for(
    dataset: ColipriDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = torch.empty

    def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return original(*shape, **options)

    monkeypatch.setattr(pieces.torch, "empty", empty)
    next(iter(make_loader(dataset, CASES, 4, num_workers=0, pin_memory=True)))
    assert asked.count(True) == 2  # image and body
