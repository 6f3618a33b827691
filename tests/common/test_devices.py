"""The memory to plan for: a number, a CPU, or what this machine has; nothing else."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from colipri.common.devices import CPU_MEMORY_TARGET, memory_target, use_bf16
from colipri.common.errors import ColipriError
from colipri.experiment_planning.encoders import SMALL_MACHINE_GB


def _gpus(monkeypatch: pytest.MonkeyPatch, *gigabytes: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gigabytes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gigabytes))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(total_memory=int(gigabytes[index] * 2**30)),
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_numbers_and_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 80)
    assert memory_target("24") == 24 and memory_target(5.5) == 5.5
    assert memory_target("cpu") == CPU_MEMORY_TARGET < SMALL_MACHINE_GB


def test_auto_is_the_smallest_gpu_or_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _gpus(monkeypatch, 79.6, 23.9)
    with caplog.at_level(logging.INFO, logger="colipri"):
        assert memory_target("auto") == 23
        _gpus(monkeypatch)
        assert memory_target("auto") == CPU_MEMORY_TARGET
    assert "23 GB" in caplog.messages[0] and "no GPU" in caplog.messages[1]


@pytest.mark.parametrize("wanted", ["much", "0", "nan", "inf", -3.0, ""])
def test_anything_else_is_one_line(wanted: str | float) -> None:
    with pytest.raises(ColipriError, match="must be at least 1 GB, or auto, or cpu, not"):
        memory_target(wanted)


def test_bf16_only_where_a_gpu_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that a T4 supports bf16, and emulates it."""
    gpu = torch.device("cuda")
    native = False
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert not use_bf16("auto", gpu) and not use_bf16("fp32", gpu)
    with pytest.raises(ColipriError, match="Tesla T4 does not compute in bf16"):
        use_bf16("bf16", gpu)
    native = True
    assert use_bf16("auto", gpu) and use_bf16("bf16", gpu) and not use_bf16("fp32", gpu)
    cpu = torch.device("cpu")
    assert not use_bf16("auto", cpu) and use_bf16("bf16", cpu)
