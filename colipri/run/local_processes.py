"""``-num_gpus N``: N processes of one training on this machine, watched by the one that starts.

They find each other as torchrun's do, by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
torchrun itself also starts a training, on one machine or many. ``-num_gpus`` is for what it does
not offer: the training's own exit codes (to torchrun, 75 of a training that was stopped and has
saved is a failure) and one line that names the process that was killed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from colipri.common.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROBLEM, ColipriError

EXIT_STOPPED = 75  # sysexits' EX_TEMPFAIL: not finished, but the same command with --c continues
EXIT_PEER_LOST = 76  # another process ended first, and has said why
STARTED_HERE = "colipri_num_gpus"  # in the environment of the processes: someone watches them
GRACE = 30.0  # seconds in which the others save and leave after one has ended
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
Command = Callable[[Sequence[str]], int]
_NO_FAULT = (EXIT_OK, EXIT_STOPPED, EXIT_INTERRUPTED)


def started_by_another() -> bool:
    """True if torchrun, Slurm or :func:`train_here` started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def add_num_gpus_option(parser: argparse.ArgumentParser) -> None:
    """Add -num_gpus, for commands that encode."""
    parser.add_argument(
        "-num_gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine that share the scans, one per GPU (with -device cpu: N "
        "processes on the CPU)",
    )


def require_gpus(options: argparse.Namespace) -> None:
    """Refuse more processes than there are GPUs; on a CPU they share the cores.

    Raises:
        ColipriError: there are fewer.
    """
    import torch

    count = torch.cuda.device_count()
    if options.device in ("auto", "cuda") and 0 < count < options.num_gpus:
        raise ColipriError(f"-num_gpus {options.num_gpus}: this machine shows {count} GPUs")


def on_own_device(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with a GPU of its own for each of several processes on one machine."""
    if not started_by_another() or options.device not in ("auto", "cuda"):
        return options
    from colipri.common.devices import find_device

    if find_device(options.device).type != "cuda":
        return options
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return argparse.Namespace(**{**vars(options), "device": own})


_CONTINUE = "the last checkpoint is complete: continue with --c"


def train_here(
    main: Command, arguments: Sequence[str], number: int, remedy: str = _CONTINUE
) -> int:
    """Run a command in ``number`` processes, and wait for them to end.

    SIGTERM, SIGUSR1 and Ctrl-C are passed on: the training saves and stops.

    Args:
        main: the command's entry point; a function of a module, which each process imports.
        arguments: of the command.
        number: of processes.
        remedy: what is kept when a process is lost and how to continue, for the message.

    Returns:
        The command's exit code.

    Raises:
        ColipriError: a process was killed; the others were stopped.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    children = [
        context.Process(target=_child, args=(main, list(arguments), rank, number, port))
        for rank in range(number)
    ]
    with _forwarding(children) as received:
        for child in children:
            child.start()
        codes = _wait_for(children)
    if received and all(code in (*_NO_FAULT, -received[0]) for code in codes):
        return max(codes) if min(codes) >= 0 else 128 + received[0]
    for rank, code in enumerate(codes):
        if code < 0:
            raise ColipriError(
                f"process {rank} of {number} was ended by {signal.Signals(-code).name} (by hand, "
                f"or out of memory); all have stopped, {remedy}"
            )
    faults = [code for code in codes if code not in (*_NO_FAULT, EXIT_PEER_LOST)]
    if not faults and EXIT_PEER_LOST in codes:
        raise ColipriError(f"the processes lost each other (network?); {remedy}")
    return faults[0] if faults else max(codes)


def _wait_for(children: Sequence[SpawnProcess]) -> list[int]:
    """Their exit codes, when all have ended; after a fault the others have GRACE seconds."""
    running = list(children)
    killed: list[SpawnProcess] = []
    deadline: float | None = None
    while running:
        wait([child.sentinel for child in running], timeout=1.0)
        running = [child for child in running if child.is_alive()]
        codes = [child.exitcode for child in children if child not in running]
        if deadline is None and any(code not in _NO_FAULT for code in codes):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            killed = running  # still waiting for the one that is gone
            for child in killed:
                child.kill()
                child.join()
            break
    return [EXIT_PEER_LOST if child in killed else child.exitcode or 0 for child in children]


@contextmanager
def _forwarding(children: Sequence[SpawnProcess]) -> Iterator[list[int]]:
    """Signals go to the children; the list says which have come."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in children:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(main: Command, arguments: list[str], rank: int, number: int, port: int) -> None:
    """One process of the training."""
    os.setpgid(0, 0)  # Ctrl-C in a terminal goes to a group: the parent passes it on, once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), STARTED_HERE: "1"}
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
    os.environ.update({**where, **{name: str(value) for name, value in who.items()}})
    code = main(arguments)
    if code != EXIT_OK:  # connections to processes that are gone may keep the interpreter waiting
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its processes; they would train on unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(EXIT_PROBLEM)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
