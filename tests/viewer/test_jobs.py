"""Work one piece at a time: order, failure, pages that were closed."""

from __future__ import annotations

import threading
import time

import pytest

from colipri.common.errors import ColipriError
from colipri.viewer.jobs import DONE, DROPPED, FAILED, RUNNING, WAITING, Job, JobQueue, Note


def _wait(job: Job, state: str) -> None:
    deadline = time.monotonic() + 60
    while job.state != state:
        assert time.monotonic() < deadline, job
        time.sleep(0.005)


def test_one_at_a_time_in_order() -> None:
    queue, order, running = JobQueue("test"), [], []

    def work(number: int) -> int:
        running.append(number)
        assert len(running) == 1
        time.sleep(0.01)
        running.pop()
        order.append(number)
        return number

    jobs = [queue.submit(f"{n}", lambda _, n=n: work(n)) for n in range(6)]
    _wait(jobs[-1], DONE)
    assert order == list(range(6)) == [job.result for job in jobs]


def test_failures_are_told_and_the_next_job_runs() -> None:
    queue = JobQueue("test")

    def refuse(note: Note) -> None:
        note("looking")
        raise ColipriError("the scan is no scan")

    def break_down(note: Note) -> None:
        raise ZeroDivisionError("by zero")

    def run_out(note: Note) -> None:
        raise MemoryError

    jobs = [queue.submit("x", work) for work in (refuse, break_down, run_out)]
    last = queue.submit("y", lambda _: 7)
    _wait(last, DONE)
    assert [job.state for job in jobs] == [FAILED] * 3
    assert jobs[0].error == "the scan is no scan" and jobs[0].step == "looking"
    assert jobs[1].error == "unexpected ZeroDivisionError: by zero"
    assert "memory" in jobs[2].error


def test_what_nobody_asks_for_is_dropped() -> None:
    """A page that was closed: what runs is finished, what waits for it is forgotten."""
    queue, go = JobQueue("test", forgotten_after=1.0), threading.Event()
    first = queue.submit("first", lambda _: go.wait(60))
    forgotten = queue.submit("forgotten", lambda _: 1)
    wanted = queue.submit("wanted", lambda _: 2)
    _wait(first, RUNNING)
    assert queue.ahead_of(forgotten) == 1 and queue.ahead_of(wanted) == 2
    for _ in range(8):  # a busy machine may take half a second between two of them
        time.sleep(0.2)
        assert queue.find(wanted.identifier) is wanted
    go.set()
    _wait(wanted, DONE)
    assert first.state == DONE and forgotten.state == DROPPED and forgotten.result is None


def test_waiting_jobs_can_be_dropped_and_are_limited() -> None:
    queue, go = JobQueue("test"), threading.Event()
    first = queue.submit("first", lambda _: go.wait(10))
    _wait(first, RUNNING)
    second = queue.submit("second", lambda _: 1)
    queue.drop(first.identifier)  # runs already
    queue.drop(second.identifier)
    queue.drop("no such job")
    assert first.state == RUNNING and second.state == DROPPED
    with pytest.raises(ColipriError, match="too much is waiting"):
        for number in range(40):
            assert queue.submit(str(number), lambda _: 1).state == WAITING
    go.set()
    queue.close()


def test_old_jobs_are_forgotten() -> None:
    queue = JobQueue("test")
    for _ in range(220):
        job = queue.submit("x", lambda _: 1)
        _wait(job, DONE)
    assert len(queue._jobs) <= 202 and queue.find(job.identifier) is job
