"""kill -9 of a command: its worker processes end as well, instead of waiting for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import itertools, os, sys
from colipri.common.parallel import stream_parallel
from parallel_work import process_number

if __name__ == "__main__":
    for outcome in stream_parallel(process_number, itertools.count(), 2, "test"):
        print(outcome.result, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(20)}
    assert workers and process.pid not in workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(_lives(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # a dead process that nobody has asked about yet
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")
