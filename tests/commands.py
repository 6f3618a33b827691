"""Running the framework's commands as a user does: in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command_line(command: str, *arguments: str) -> list[str]:
    """The command without relying on where pip put its script."""
    module = "colipri.run." + command.removeprefix("colipri_")
    program = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", program, *arguments]


def run(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; output is captured."""
    return subprocess.run(
        command_line(command, *arguments),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=600,
        check=False,
    )


def run_until(
    condition: Callable[[], bool], number: signal.Signals, command: str, *arguments: str
) -> tuple[int, str]:
    """Start a command, send it a signal as soon as ``condition`` holds, and wait for its end."""
    process = subprocess.Popen(
        command_line(command, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(
                f"{command} ended before it was interrupted: {process.communicate()[0]}"
            )
        time.sleep(0.01)
    target = process.pid
    if number == signal.SIGKILL:
        os.killpg(target, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output
