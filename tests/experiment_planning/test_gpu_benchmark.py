"""benchmarks/gpu.py without a GPU: the planner reads its file, and failures are rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from colipri.experiment_planning.gpu_measurement import read_gpu_measurement

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def test_steps_of_every_level_are_measured(gpu: Any) -> None:
    chosen = [one for one in gpu.settings(CPU, True, True) if one.name == "Primus-M"]
    levels = {one.configuration.activation_checkpointing for one in chosen}
    assert levels == {"none", "mlp", "full"}
    assert {one.variant for one in chosen} == {"ragged", "padded"}
    ragged, padded = (
        next(one for one in chosen if one.variant == variant) for variant in ("ragged", "padded")
    )
    rows = [gpu.measure_step(one, CPU, 0.0) for one in (ragged, padded)]
    for row in rows:
        assert row["seconds"] > 0 and row["tflops"] > 0 and row["predicted_gb"] > 0
    assert rows[0]["computed_tokens"] < rows[1]["computed_tokens"]


def test_what_fails_is_a_row_and_not_the_end(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = next(iter(gpu.settings(CPU, True, False)))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("gpu_measures.make_inputs", full)
    row = gpu.measure_step(setting, CPU, 0.0)
    assert row["error"] == "out of memory" and row["tflops"] is None
    content = {
        **gpu.describe(CPU),
        "bf16": False,
        "peaks": {
            "matrix_product_tflops": 1.0,
            "matrix_product_fp32_tflops": 1.0,
            "attention": [],
        },
        "steps": [row],
        "left_out": ["Primus-M ragged, none"],
        "feed": [],
    }
    shown = "\n".join(gpu.table(content))
    assert "out of memory" in shown and "left out, because time was up: Primus-M" in shown


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--tiny", "-o", "gpu.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert time.monotonic() - started < 240
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert not [row["error"] for row in content["steps"] if "error" in row]
    assert all(row["mfu"] > 0 for row in content["steps"])
    assert {one["model"] for one in content["feed"]} == {"Primus-M", "PrimusV2-S"}
    measured = read_gpu_measurement(tmp_path / "gpu.json")
    assert measured.step_tflops[48] > 0 and measured.peak_tflops > 0
    assert "Primus-M" in done.stdout and "MFU" in done.stdout
