"""``colipri_train`` in several processes, as users start it: signals, deaths, faults, torchrun."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from commands import command_line, run

RUN = "Dataset950_Tiny/ColipriTrainer_CRM__colipriPlans__3d_lowres/fold_0"
FOLD = ["950", "3d_lowres", "0", "-device", "cpu", "-tr", "ColipriTrainer_CRM"]
TRAIN = [*FOLD, "--epochs", "200"]
SHORT = [*TRAIN, "--iterations_per_epoch", "2", "--validate_every", "100", "-num_workers", "0"]


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch) -> Path:
    """The run's folder, in results of this test alone."""
    monkeypatch.setenv("colipri_results", str(tmp_path))
    return tmp_path / RUN


def start(folder: Path, line: Sequence[str]) -> subprocess.Popen[str]:
    """Start a training and wait until its first epoch is saved."""
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 900
    while not (folder / "checkpoint_latest.pth").is_file():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()  # it ends its own processes
            raise AssertionError(process.communicate())
        time.sleep(0.05)
    return process


def children(process: subprocess.Popen[str]) -> list[int]:
    """Of a training started with -num_gpus, in the order of their ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in sorted(found, key=int)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def steps(folder: Path) -> int:
    content = torch.load(folder / "checkpoint_latest.pth", weights_only=True)
    return content["sampler_position"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_killed_process_stops_all_with_one_line_and_a_whole_checkpoint(folder) -> None:
    process = start(folder, command_line("colipri_train", *SHORT, "-num_gpus", "2"))
    workers = children(process)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, output + errors
    lines = [line for line in errors.splitlines() if line.startswith("colipri_train")]
    assert len(lines) == 1 and "process 1 of 2 was ended by SIGKILL" in lines[0], errors
    assert "Traceback" not in errors
    assert output.count("epoch 0:") == 1  # one process speaks
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    done = steps(folder)
    assert done >= 2
    go_on = ["--c", "--epochs", str(-(-(done + 1) // 2))]
    resumed = run("colipri_train", *FOLD, *go_on)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert (folder / "checkpoint_final.pth").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_to_the_starting_process_saves_and_stops(folder, number, expected) -> None:
    process = start(folder, command_line("colipri_train", *SHORT, "-num_gpus", "2"))
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == expected, output + errors
    assert output.count("Stopped by") == 1
    assert errors.count("colipri_train: error") == (number == signal.SIGINT)
    assert steps(folder) >= 2


@pytest.mark.slow
def test_torchrun_passes_sigterm_on(folder) -> None:
    program = folder.parents[2] / "colipri_train"  # where pip put its script is not known
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom colipri.run.train import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    torchrun = shutil.which("torchrun") or str(Path(sys.executable).with_name("torchrun"))
    many = ["--standalone", "--nproc_per_node", "2", "--no-python", str(program)]
    process = start(folder, [torchrun, *many, *SHORT])
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert output.count("Stopped by SIGTERM") == 1, output + errors
    assert steps(folder) >= 2


@pytest.mark.slow
def test_a_fault_that_all_find_is_one_line(folder) -> None:
    done = run("colipri_train", "950", "3d_lowres", "7", "-device", "cpu", "-num_gpus", "2")
    assert done.returncode == 1
    assert done.stderr.count("colipri_train: error") == 1 and "fold 7" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-num_gpus", "0"], "-num_gpus must be at least 1"),
        (["-num_gpus", "64", "-device", "cuda"], "no cuda device|this machine shows"),
    ],
)
def test_impossible_numbers_are_refused(options, part, tiny, capsys) -> None:
    import re

    from colipri.run.train import main

    assert main(["950", "3d_lowres", "0", "-device", "cpu", *options]) == 1
    assert re.search(part, capsys.readouterr().err)


def test_processes_are_counted_once(tiny, capsys, monkeypatch) -> None:
    from colipri.run.train import main

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    base = ["950", "3d_lowres", "0", "-device", "cpu"]
    assert main([*base, "-num_gpus", "2"]) == 1
    assert "omit -num_gpus" in capsys.readouterr().err
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    assert main(base) == 1
    assert "MASTER_ADDR and MASTER_PORT not" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sharded_run_starts_from_weights_continues_and_is_validated(folder, tiny) -> None:
    """As a user types it; the transfer is tried out with the weights that the first process has."""
    shards = ["-num_gpus", "2", "--parallel", "fsdp", "-num_workers", "0"]
    start_of_run = [*FOLD, "--epochs", "1", "--iterations_per_epoch", "2", *shards]
    weights = ["-pretrained_weights", str(tiny.checkpoint)]
    tried = run("colipri_train", *start_of_run, *weights, "--verify")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert tried.stdout.count("nnU-Net") and not folder.exists()
    trained = run("colipri_train", *start_of_run, *weights)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert trained.stdout.count("Pretrained weights from") == 1
    go_on = run("colipri_train", *FOLD, "--c", "--epochs", "2", *shards)
    assert go_on.returncode == 0, go_on.stdout + go_on.stderr
    assert "Continuing" in go_on.stdout and "epoch 1:" in go_on.stdout
    judged = run("colipri_train", *FOLD, "--val", *shards)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert (folder / "validation" / "summary.json").is_file()
    for done in (tried, trained, go_on, judged):
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
