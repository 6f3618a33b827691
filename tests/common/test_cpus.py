"""Threads follow the CPUs that a process may use, and sleep while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colipri.common import cpus
from colipri.common.cpus import cpu_quota, thread_settings, usable_cpus
from colipri.common.parallel import default_num_processes
from colipri.dataloading.loader import default_num_workers


def _group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content + "\n")


def _own(root: Path, *lines: str) -> Path:
    file = root / "own"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_the_quota_of_version_2_is_the_smallest_on_the_way(tmp_path: Path) -> None:
    own = _own(tmp_path, "0::/system.slice/docker-1")
    _group(tmp_path, "", cpu_max="max 100000")
    assert cpu_quota(tmp_path, own) is None
    _group(tmp_path, "system.slice/docker-1", cpu_max="400000 100000")
    assert cpu_quota(tmp_path, own) == 4
    _group(tmp_path, "system.slice", cpu_max="250000 100000")
    assert cpu_quota(tmp_path, own) == 2.5


def test_inside_a_container_the_own_group_is_the_root(tmp_path: Path) -> None:
    _group(tmp_path, "", cpu_max="150000 100000")
    assert cpu_quota(tmp_path, _own(tmp_path, "0::/docker/not_visible_here")) == 1.5


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_the_quota_of_version_1(tmp_path: Path, folder: str) -> None:
    own = _own(tmp_path, "9:memory:/job", "4:cpu,cpuacct:/job", "3:cpuset:/", "0::/")
    _group(tmp_path, f"{folder}/job", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert cpu_quota(tmp_path, own) is None
    _group(tmp_path, f"{folder}/job", cpu_cfs_quota_us="200000", cpu_cfs_period_us="50000")
    assert cpu_quota(tmp_path, own) == 4


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (2.5, 2), (64.0, 16), (None, 16)])
def test_affinity_and_quota_limit_threads_processes_and_workers(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert usable_cpus() == expected
    assert thread_settings({})["OMP_NUM_THREADS"] == str(expected)
    assert default_num_processes() == min(8, expected)
    assert default_num_workers() == (0 if expected <= 2 else min(8, expected - 1))


def test_what_the_user_set_stays() -> None:
    mine = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "active"}
    assert thread_settings(mine) == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
    assert thread_settings({**mine, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}) == {}
    assert "OMP_WAIT_POLICY" not in thread_settings({"KMP_BLOCKTIME": "200"})
    assert thread_settings({"OMP_NUM_THREADS": "3"})["OMP_WAIT_POLICY"] == "passive"


def test_processes_of_one_training_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 12)
    alone = thread_settings({})
    assert alone["OMP_NUM_THREADS"] == "12"
    child = thread_settings({**alone, "LOCAL_WORLD_SIZE": "4"})
    assert child["OMP_NUM_THREADS"] == "3"
    again = thread_settings({**alone, **child, "LOCAL_WORLD_SIZE": "4"})
    assert again["OMP_NUM_THREADS"] == "3"


def test_a_command_sets_both_before_torch_is_loaded() -> None:
    code = """
import os, sys
from colipri.run.cli import make_parser, run_command
def action(options):
    assert "torch" not in sys.modules
    import torch
    print(os.environ["OMP_WAIT_POLICY"], torch.get_num_threads())
    print(os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))
sys.exit(run_command(make_parser("x", ""), action, []))
"""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP", "MKL", "PYTORCH", "coli", "LOCAL_WORLD_SIZE"))
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    expected = ["passive", str(usable_cpus()), "expandable_segments:True"]
    assert ran.stdout.split() == (expected if sys.platform == "linux" else [*expected[:2], "None"])


def test_the_users_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cpus.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:128")
    cpus.prepare_allocator()
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ
