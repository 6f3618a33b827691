"""Steps of long experiments: the commands that users type, several at once, progress to stderr."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm


def call(
    log: Path, *command: str, environment: Mapping[str, str] | None = None, keep_open: int = 2
) -> None:
    """Run one command to its end; its output is added to the file ``log``.

    Args:
        environment: variables beside those of this process.
        keep_open: a file descriptor that the command inherits, such as that of a lock.

    Raises:
        SystemExit: the command failed; the message names the file.
    """
    line = " ".join(command)
    tqdm.write(line, file=sys.stderr)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {line}\n")
        file.flush()
        code = subprocess.run(
            [Path(sysconfig.get_path("scripts")) / command[0], *command[1:]],
            env={**os.environ, **(environment or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=(keep_open,),
            check=False,
        ).returncode
    if code:
        sys.exit(f"{command[0]} failed, see {log}")


def run_side_by_side(
    steps: Iterable[Callable[[], None]],
    at_once: int,
    title: str,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Run steps in threads, each of which waits for a command; a bar shows the time left.

    The first failure ends it: steps that run are awaited, others do not begin.
    """
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(step) for step in steps]
        try:
            for done in tqdm(as_completed(waiting), title, len(waiting), smoothing=0):
                done.result()
                after_each()
        finally:
            pool.shutdown(cancel_futures=True)


def trainings_at_once(asked: int, device: str) -> int:
    """``asked`` on the CPU (small models: more trainings, not more threads), else one.

    The commands that are started afterwards share the cores.
    """
    at_once = asked if device == "cpu" else 1
    if at_once > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // at_once))
    return at_once
