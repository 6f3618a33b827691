"""A full device, shared memory that is too small: named, with what to do, and no case's fault."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from parallel_work import full_device, unreadable_file

from colipri.common.disk import DiskFullError, device_of, is_full, write_error
from colipri.common.errors import ColipriError
from colipri.common.parallel import run_parallel, stream_parallel
from colipri.run.cli import make_parser, run_command

WRITE = """
import sys
from colipri.common.atomic import atomic_write_bytes
from colipri.run.cli import make_parser, run_command
def work(options):
    atomic_write_bytes(sys.argv[1] + "/a.bin", bytes(10**6))
sys.exit(run_command(make_parser("command", ""), work, []))
"""
POOL = """
import sys
from colipri.common.parallel import run_parallel
from colipri.run.cli import make_parser, run_command
def work(options):
    list(run_parallel(abs, [1, 2, 3], 2, "counting"))
if __name__ == "__main__":
    sys.exit(run_command(make_parser("command", ""), work, []))
"""


def _mounted(size: str, folder: Path | str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where ``folder`` is a device of ``size``; skips where that is not permitted."""
    script = 'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, "sh", size, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("needs the permission to mount")
    return subprocess.run(
        [*prefix, sys.executable, "-c", program, str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_full_device_is_named(tmp_path: Path) -> None:
    result = _mounted("256k", tmp_path, WRITE)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert f"cannot write {tmp_path}/a.bin: No space left on device" in result.stderr
    assert f"small at {tmp_path} has 0.0 of 0.0 GiB free; free space there" in result.stderr


def test_shared_memory_that_is_too_small(tmp_path: Path) -> None:
    """Semaphores of worker processes are files in /dev/shm."""
    fill = "import pathlib; pathlib.Path('/dev/shm/fill').write_bytes(bytes(4096))\n"
    program = tmp_path / "pool.py"
    program.write_text(POOL.replace("import sys\n", "import sys\n" + fill, 1))
    run = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    result = _mounted("4k", "/dev/shm", run)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    for part in ("worker processes cannot be started", "small at /dev/shm", "--shm-size", "-np"):
        assert part in result.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_device_is_no_items_fault(processes: int) -> None:
    """--keep_going must not leave out case after case."""
    for run in (run_parallel, stream_parallel):
        with pytest.raises(DiskFullError, match="cannot write /tmp/x: No space left on device"):
            list(run(full_device, [1, 2, 3], processes, "work"))
        outcomes = list(run(unreadable_file, [1, 2, 3], processes, "work"))
        assert [outcome.result for outcome in outcomes] == [None] * 3


def test_kinds_of_errors() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error = OSError(number, os.strerror(number))
        assert is_full(error) and isinstance(write_error("/tmp/a", error), DiskFullError)
    denied = write_error("/tmp/a", PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(denied, ColipriError) and not isinstance(denied, DiskFullError)
    assert "check free space and permissions of /tmp" in str(denied)
    assert "GiB free" in device_of("/no/such/folder/at/all")


def test_commands_name_it_too(capsys: pytest.CaptureFixture) -> None:
    def work(_: object) -> None:
        full_device(0)

    assert run_command(make_parser("command", ""), work, []) == 1
    assert "GiB free; free space there" in capsys.readouterr().err
