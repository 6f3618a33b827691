"""An objective from outside the package, by the command line alone: plan, train, stop, continue.

tests/objectives/foreign/volume_regression.py is all that exists of it.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run, run_until
from tiny_dataset import write_tiny_dataset

FOREIGN = Path(__file__).parents[1] / "objectives" / "foreign"
DATA = "Dataset950_Tiny"
HEAD = "body_fraction_head."
TRAIN = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_CV", "-device", "cpu", "-num_workers", "0"]
SHORT = [*TRAIN, "--epochs", "2", "--iterations_per_epoch", "2", "--set", "batch_size=4"]
SHORT += ["--set", "micro_batch_size=1"]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / name))
    monkeypatch.setenv("colipri_ext", str(FOREIGN))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_tiny_dataset(tmp_path / "raw")
    return tmp_path


def succeed(command: str, *arguments: str, **environment: str) -> str:
    done = run(command, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plan(folders: Path, *options: str) -> dict[str, Any]:
    common = ["-d", "950", "-gpu_memory_target", "2", "-text_encoder", "scratch"]
    succeed("colipri_plan_experiment", *common, *options)
    file = folders / "preprocessed" / DATA / "colipriPlans.json"
    return dict(json.loads(file.read_text())["configurations"]["3d_lowres"])


def run_folder(results: Path) -> Path:
    return results / DATA / "ColipriTrainer_CV__colipriPlans__3d_lowres" / "fold_0"


def checkpoint(results: Path) -> dict[str, Any]:
    return dict(torch.load(run_folder(results) / "checkpoint_final.pth", weights_only=True))


@pytest.mark.slow
def test_it_plans_trains_stops_and_continues(folders: Path, monkeypatch: Any) -> None:
    succeed("colipri_extract_fingerprint", "-d", "950")
    plain = plan(folders)
    planned = plan(folders, "--set", "objectives.V.scale=5")
    assert planned["training"]["objectives"]["body_fraction"]["scale"] == 5
    memory = [entry["memory_estimate"] for entry in (plain, planned)]
    assert "body_fraction" in json.dumps(memory[1]) and "body_fraction" not in json.dumps(memory[0])
    succeed("colipri_preprocess", "-d", "950", "-c", "3d_lowres", "-np", "1")

    whole, parts, shared = (folders / name for name in ("whole", "parts", "shared"))
    line = succeed("colipri_train", *SHORT, colipri_results=str(whole))
    assert "V (body_fraction, weight 1)" in line

    monkeypatch.setenv("colipri_results", str(parts))
    latest = run_folder(parts) / "checkpoint_latest.pth"
    code, output = run_until(latest.is_file, signal.SIGTERM, "colipri_train", *SHORT)
    assert code == 75, output
    succeed("colipri_train", *SHORT, "--c", colipri_results=str(parts))
    first, second = checkpoint(whole), checkpoint(parts)
    assert any(name.startswith(HEAD) for name in first["network_weights"])
    for name, value in first["network_weights"].items():
        assert torch.equal(value, second["network_weights"][name]), name
    for one, other in zip(first["history"], second["history"], strict=True):
        assert one["train"] == other["train"] and one["val"] == other["val"]
    assert first["history"][-1]["val"]["body_fraction/loss"] > 0
    assert first["settings"]["objectives"]["body_fraction"]["scale"] == 5

    succeed("colipri_train", *SHORT, "-num_gpus", "2", colipri_results=str(shared))
    third = checkpoint(shared)
    # not weight by weight: where a gradient is 0 but for rounding, Adam makes a whole step of it
    for one, other in zip(first["history"], third["history"], strict=True):
        assert other["train"] == pytest.approx(one["train"], rel=2e-3)
    succeed("colipri_train", *SHORT, "--val", colipri_results=str(whole))

    monkeypatch.delenv("colipri_ext")  # uninstalled: nothing is left out silently
    refused = run("colipri_train", *SHORT, "--c", colipri_results=str(parts))
    assert refused.returncode == 1
    assert "no objective" in refused.stderr and "Traceback" not in refused.stderr
