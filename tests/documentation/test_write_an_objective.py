"""The example of documentation/write_an_objective.md is an objective that can be trained."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from colipri.plans.plans import load_plans
from colipri.training.options import RunOptions
from colipri.training.variants import find_trainer

PAGE = Path(__file__).resolve().parents[2] / "documentation" / "write_an_objective.md"


def test_the_example_is_trained(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    extensions, run = tmp_path / "extensions", tmp_path / "run"
    extensions.mkdir()
    run.mkdir()
    (extensions / "body_fraction.py").write_text(example[1], encoding="utf-8")
    monkeypatch.setenv("colipri_ext", str(extensions))

    options = RunOptions(
        {"training.num_epochs": 1, "training.num_iterations_per_epoch": 2}, num_workers=0
    )
    cls = find_trainer("ColipriTrainer_CB")
    plans = load_plans("Dataset950_Tiny")
    trainer = cls(plans, "3d_lowres", 0, run, torch.device("cpu"), options)
    trainer.run_training()

    epoch = trainer.progress.history[-1]
    assert {"contrastive/loss", "body_fraction/loss"} <= set(epoch["train"])
    assert 0 < epoch["train"]["body_fraction/loss"] < math.inf
    assert "body_fraction/loss" in epoch["val"]
    assert "body_head.0.weight" in dict(trainer.model.named_parameters())
