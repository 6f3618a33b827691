"""Writing errors that name the device and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from colipri.common.errors import ColipriError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHARED_MEMORY = Path("/dev/shm")  # where processes of Linux exchange tensors and semaphores
_MOUNTS = Path("/proc/self/mounts")
_GIB = 2**30


class DiskFullError(ColipriError):
    """A device or quota has no room: the fault of no case, so that --keep_going must not go on."""


def is_full(error: OSError) -> bool:
    """True if the device, a quota or a limit on file sizes is exhausted."""
    return error.errno in FULL


def write_error(target: Path | str, error: OSError) -> ColipriError:
    """The error for a file that could not be written, with the state of its device.

    Args:
        target: what was to be written.
        error: from the operating system.
    """
    target = Path(target)
    reason = error.strerror or str(error)
    text = f"cannot write {target}: {reason}; check free space and permissions of {target.parent}"
    if not is_full(error):
        return ColipriError(text)
    return DiskFullError(f"{text}: {device_of(target)}; free space there, or use another device")


def device_of(path: Path | str) -> str:
    """Describe where a path is stored: "/dev/sda1 at /data has 0.0 of 916.3 GiB free".

    Args:
        path: may not exist yet; the nearest existing folder above it counts.
    """
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    mount = folder
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    try:
        usage = shutil.disk_usage(folder)
        inodes = os.statvfs(folder)
    except OSError:
        return f"{_device_at(mount)} at {mount}"
    room = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    if inodes.f_files and not inodes.f_favail:
        room += ", but no room for further files (inodes)"
    return f"{_device_at(mount)} at {mount} has {room}"


def shared_memory_error(what: str, error: BaseException) -> ColipriError:
    """The error for processes that could not share memory.

    Args:
        what: what failed, to begin the message.
        error: the reason.
    """
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ColipriError(
        f"{what} ({reason}); {device_of(SHARED_MEMORY)}: make it larger (docker run "
        "--shm-size=8g, or mount -o remount,size=8g /dev/shm), or use fewer processes (-np, "
        "-num_workers; 0 or 1 needs none)"
    )


def _device_at(mount: Path) -> str:
    """Name of the device that is mounted at a folder; "the device" where that is not known."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "the device"
    names = [line.split(" ")[0] for line in lines if line.split(" ")[1:2] == [str(mount)]]
    return names[-1] if names else "the device"
