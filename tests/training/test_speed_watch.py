"""A training that becomes far slower says so once, with a cause, and says when it is over."""

from __future__ import annotations

import os
from typing import Any

import pytest
from training.test_family import trainer_of

from colipri.training.run_folder import StopRequest
from colipri.training.speed_watch import COMPARED_STEPS, WARM_UP_STEPS, SpeedWatch

ENOUGH = COMPARED_STEPS + 5


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _steps(
    watch: SpeedWatch, clock: _Clock, number: int, compute: float, wait: float, work: float = 1.0
) -> list[str]:
    lines = []
    for _ in range(number):
        with watch.waiting_for_data():
            clock.now += wait
        clock.now += compute
        lines.append(watch.after_step(work))
    return [line for line in lines if line]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))


def _started(clock: _Clock, watch: SpeedWatch) -> None:
    _steps(watch, clock, WARM_UP_STEPS, 30.0, 0.0)  # compilation is no start to compare with
    assert _steps(watch, clock, COMPARED_STEPS, 1.0, 0.1) == []


def test_once_when_it_begins_and_once_when_it_is_over(quiet: None) -> None:
    clock = _Clock()
    watch = SpeedWatch(clock)
    _started(clock, watch)
    assert _steps(watch, clock, ENOUGH, 2.0, 0.1) == []  # not far
    found = _steps(watch, clock, 3 * ENOUGH, 11.0, 0.1)
    assert len(found) == 1 and "times slower than at its start" in found[0]
    assert "nvidia-smi" in found[0]
    assert _steps(watch, clock, ENOUGH, 1.0, 0.1) == ["training is as fast as at its start again"]
    assert len(_steps(watch, clock, ENOUGH, 11.0, 0.1)) == 1


def test_single_slow_steps_are_normal(quiet: None) -> None:
    clock = _Clock()
    watch = SpeedWatch(clock)
    _started(clock, watch)
    for _ in range(20):
        assert _steps(watch, clock, 4, 1.0, 0.1) + _steps(watch, clock, 1, 60.0, 0.1) == []


def test_more_work_is_not_slower(quiet: None) -> None:
    clock = _Clock()
    watch = SpeedWatch(clock)
    _started(clock, watch)
    assert _steps(watch, clock, ENOUGH, 4.0, 0.1, work=4.0) == []


def test_the_disk_and_other_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (999.0, 1.0, 1.0))
    for wait, words in ((9.0, "90 % of a step is waiting for data (9 % then)"), (0.1, "999.0")):
        clock = _Clock()
        watch = SpeedWatch(clock)
        _started(clock, watch)
        (line,) = _steps(watch, clock, ENOUGH, 1.0 if wait > 1 else 9.0, wait)
        assert words in line


def test_the_trainer_feeds_it(tiny: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of("ColipriTrainer_C", tmp_path, epochs=1, iterations_per_epoch=2)
    trainer.initialize()
    works = []
    monkeypatch.setattr(trainer.speed, "after_step", works.append)
    trainer.on_train_start()
    with StopRequest() as stop:
        trainer.run_epoch(stop)
    trainer.log.close()
    assert len(works) == 2 and min(works) > 0
