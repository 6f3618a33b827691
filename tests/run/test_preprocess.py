"""colipri_preprocess as a user starts it: killed, interrupted, without disk space or permission."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from preprocessing.small_dataset import (
    NAME,
    folder_bytes,
    make_plans,
    phantom,
    write_image,
    write_plans,
    write_raw_dataset,
)

from colipri.run.preprocess import main

CASES = tuple((f"case{n}", f"p{n}", f"s{n}", "", True) for n in range(8))
_START = "import sys; from colipri.run.preprocess import main; sys.exit(main())"


@pytest.fixture
def prepared(workspace: Workspace) -> Path:
    """Eight cases and a plan so fine that a case takes a noticeable time; the target folder."""
    folder = write_raw_dataset(workspace.raw, cases=CASES)
    for number in range(len(CASES)):
        array = phantom(number, (40, 48, 56))
        write_image(folder / "imagesTr" / f"case{number}_0000.nii.gz", array, (4.0, 4.0, 4.0))
    write_plans(workspace.preprocessed, make_plans(spacing=[2.5, 2.5, 2.5]))
    return workspace.preprocessed / NAME / "colipriPlans_3d_lowres"


def _start(*arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", _START, "-d", "901", *arguments],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _finished(folder: Path) -> int:
    return len(list(folder.glob("case?.json")))


def _uninterrupted(folder: Path) -> dict[str, bytes]:
    """What a run in peace makes; the folder is removed again."""
    assert main(["-d", "901", "-np", "1"]) == 0
    content = folder_bytes(folder)
    shutil.rmtree(folder)
    return content


def test_killed_and_run_again_gives_the_same_bytes(prepared: Path) -> None:
    expected = _uninterrupted(prepared)
    process = _start("-np", "2")
    _wait_for(lambda: _finished(prepared) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert _finished(prepared) < len(CASES), "killed too late to prove anything"
    assert not (prepared / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in prepared.glob("case?.json")}
    process = _start("-np", "1")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert f"{len(done)} unchanged" in output
    assert folder_bytes(prepared) == expected
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.slow
def test_concurrent_parts(prepared: Path) -> None:
    expected = _uninterrupted(prepared)
    parts = [_start("-np", "1", "--num_parts", "3", "--part_id", str(part)) for part in range(3)]
    outputs = [part.communicate()[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0, 0], outputs
    assert folder_bytes(prepared) == expected
    assert any("is ready in" in output for output in outputs)


def test_ctrl_c(prepared: Path) -> None:
    process = _start("-np", "2")
    _wait_for(lambda: _finished(prepared) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: to all of the group
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert "interrupted; run the same command again" in output
    assert "Traceback" not in output
    assert not list(prepared.glob(".partial-*"))
    assert _finished(prepared) < len(CASES) and not (prepared / "manifest.json").exists()
    for record in prepared.glob("case?.json"):
        files = json.loads(record.read_text())["files"]
        assert all((prepared / name).stat().st_size == f["bytes"] for name, f in files.items())


@pytest.mark.slow
def test_killed_worker(prepared: Path) -> None:
    process = _start("-np", "2")
    _wait_for(lambda: _finished(prepared) >= 1, process)
    os.kill(_workers(process.pid)[0], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "a worker process died" in output and "fewer processes (-np)" in output
    assert main(["-d", "901", "-np", "1"]) == 0


def _workers(parent: int) -> list[int]:
    """Processes that multiprocessing spawned, without its resource tracker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def test_file_that_cannot_be_written_whole(prepared: Path) -> None:
    """A limit on file sizes stands for any disk that fills up while a case is written."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    for arguments in ((), ("--keep_going",)):  # a full disk is no broken case
        process = _start("-np", "1", *arguments, preexec_fn=limit)
        output = process.communicate()[0]
        assert process.returncode == 1, output
        assert "cannot write" in output and "check free space" in output
        assert "Traceback" not in output
        assert list(prepared.iterdir()) == []
    assert main(["-d", "901", "-np", "1"]) == 0


def _mounting(commands: str, folder: Path) -> tuple[str, ...]:
    """A prefix that runs a command with another mount; skips where that is not permitted."""
    prefix = ("unshare", "-m", "sh", "-c", f'{commands} && shift && exec "$@"', "sh", str(folder))
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("needs the permission to mount")
    return prefix


@pytest.mark.slow
def test_full_disk(prepared: Path, workspace: Workspace) -> None:
    prepared.mkdir()
    prefix = _mounting('mount -t tmpfs -o size=256k none "$1"', prepared)
    process = _start("-np", "1", "--keep_going", prefix=prefix)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "No space left on device" in output and "Traceback" not in output
    assert "left out" not in output


@pytest.mark.slow
def test_read_only_folder(prepared: Path, workspace: Workspace) -> None:
    target = workspace.preprocessed / NAME
    if os.geteuid() == 0:  # permissions do not stop root
        prefix = _mounting('mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"', target)
    else:
        prefix = ()
        target.chmod(0o555)
    process = _start("-np", "1", "--keep_going", prefix=prefix)
    output = process.communicate()[0]
    target.chmod(0o755)
    assert process.returncode == 1, output
    assert "cannot write" in output and "Traceback" not in output
    assert not prepared.exists()


def test_broken_case_in_the_middle(
    prepared: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    image = workspace.raw / NAME / "imagesTr" / "case3_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    assert main(["-d", "901", "-np", "1"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "case3_0000.nii.gz" in error
    assert main(["-d", "901", "-np", "1", "--keep_going"]) == 0
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert list(manifest["failed"]) == ["case3"] and len(manifest["cases"]) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "999"], "no data set has the number 999"),
        (["-d", "901", "-c", "3d_fullres"], "no configuration '3d_fullres'"),
        (["-d", "901", "-p", "otherPlans"], "make it with colipri_plan_experiment"),
        (["-d", "901", "-np", "0"], "-np must be at least 1"),
        (["-d", "901", "--num_parts", "2", "--part_id", "2"], "part_id must be 0 to 1"),
    ],
)
def test_wrong_arguments(
    workspace: Workspace, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    write_raw_dataset(workspace.raw)
    write_plans(workspace.preprocessed, make_plans())
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_plan_of_another_version(workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    write_raw_dataset(workspace.raw)
    path = write_plans(workspace.preprocessed, make_plans())
    path.write_text(
        path.read_text().replace('"colipri_plans_version": 1', '"colipri_plans_version": 7')
    )
    assert main(["-d", "901"]) == 1
    assert "plans version 7" in capsys.readouterr().err
    assert not (workspace.preprocessed / NAME / "colipriPlans_3d_lowres").exists()
