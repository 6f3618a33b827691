"""Work for worker processes, which import it by name."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

from colipri.common.errors import ColipriError


def slow_square(number: int) -> int:
    """Later items are quicker, so that they finish first."""
    time.sleep(0.05 if number == 0 else 0)
    if number == 3:
        raise ColipriError("three is refused")
    return number * number


def full_device(_: int) -> int:
    """Write to a device without free space."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")


def unreadable_file(_: int) -> int:
    """Read a damaged file."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), "/tmp/x")


def die(number: int) -> int:
    """A worker that the system kills."""
    os._exit(9)


def process_number(number: int) -> int:
    """Which process does this."""
    time.sleep(0.01)
    return os.getpid()


class DiesWhileSent:
    """Part of a result; once it is made ready for sending, its process has little time left."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return object, ()


def large_result(_: int) -> tuple[bytes, DiesWhileSent]:
    """A worker that the system kills while it sends a result, which takes a while."""
    return b"x" * 200_000_000, DiesWhileSent()
