"""The CPUs that this process may use, how many threads compute on them, and CUDA's allocator.

Nothing here imports torch, which reads these settings once, when it is loaded: commands set them
before that (:func:`prepare_threads`, :func:`prepare_allocator`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
# GNU's OpenMP, which torch brings, lets a thread spin for some 10 ms at the end of a parallel loop
# before it sleeps. On cores that other processes use as well, those spins are the others' time.
WAIT_POLICY = "passive"
PLANNED_THREADS = "colipri_threads"  # says that OMP_NUM_THREADS is ours, not the user's
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
# oneDNN keeps code compiled for every shape that it multiplied in bf16. Numbers of tokens differ
# from step to step, so its 1,024 entries grow to gigabytes and are rarely used again.
_ONEDNN_CAPACITY = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def usable_cpus() -> int:
    """Return how many CPUs this process may keep busy: its affinity, and its container's quota.

    A quota of 2.5 CPUs counts as 2: with 3 threads the kernel would stop one of them for a sixth of
    the time, and the others wait for it at the end of each parallel loop.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return max(1, min(cpus or 1, cpus or 1 if quota is None else int(quota)))


def cpu_quota(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> float | None:
    """Return the CPUs that the control groups of this process allow; None without a limit.

    The smallest limit on the way from the root to the process's own group counts, as for the
    kernel. Inside a container the own group is often mounted as the root.

    Args:
        root: where cgroups are mounted (version 2, or version 1 with a folder per controller).
        own: /proc/self/cgroup.
    """
    quotas = [
        quota
        for folder in _own_folders(root, own)
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def thread_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that OpenMP and oneDNN read when torch is loaded; the user's stay.

    Processes of one training (LOCAL_WORLD_SIZE) share the CPUs of this machine.

    Args:
        environment: variables that are set already.
    """
    name, capacity = _ONEDNN_CAPACITY
    settings = {} if environment.get(name) else {name: capacity}
    if not any(environment.get(name) for name in _WAITING):
        settings["OMP_WAIT_POLICY"] = WAIT_POLICY
    number = environment.get("OMP_NUM_THREADS")
    if not number or number == environment.get(PLANNED_THREADS):
        planned = str(max(1, usable_cpus() // int(environment.get("LOCAL_WORLD_SIZE", "1"))))
        settings |= {"OMP_NUM_THREADS": planned, PLANNED_THREADS: planned}
    return settings


def prepare_threads() -> None:
    """Set these variables for this process and its children, before torch is loaded."""
    os.environ.update(thread_settings(os.environ))


def prepare_allocator() -> None:
    """Let CUDA's memory grow in place, before torch is loaded; what the user has set stays.

    Micro batches hold different numbers of tokens. In segments of fixed sizes they leave gaps that
    nothing fits into, and a step runs out of memory beside gigabytes that are free.
    """
    if sys.platform == "linux" and not any(os.environ.get(name) for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def _own_folders(root: Path, own: Path) -> list[Path]:
    """Folders of the CPU controller from the root to the process's own group."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        parts = [part for part in path.split("/") if part]
        for top in tops:
            folders += [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return folders


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None  # -1: none


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
