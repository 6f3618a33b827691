"""documentation/training.md has an example for every hook, and every example can be trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from colipri.plans.plans import load_plans
from colipri.training.options import RunOptions
from colipri.training.trainer import ColipriTrainer
from colipri.training.variants import find_trainer

PAGE = Path(__file__).resolve().parents[2] / "documentation" / "training.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
NAMES = re.findall(r"^class (\w+)\(ColipriTrainer\)", CODE, re.MULTILINE)


def test_every_hook_has_an_example() -> None:
    table = TEXT.split("| hook | decides |")[1].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row]
    hooks = re.findall(r"`(\w+)`", "\n".join(cells))
    assert len(hooks) > 8
    assert [hook for hook in hooks if f"def {hook}(self" not in CODE] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_trained(
    name: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions, run = tmp_path / "extensions", tmp_path / "run"
    extensions.mkdir()
    run.mkdir()
    (extensions / "my_trainers.py").write_text(CODE, encoding="utf-8")
    monkeypatch.setenv("colipri_ext", str(extensions))

    options = RunOptions(
        {"training.num_epochs": 1, "training.num_iterations_per_epoch": 2}, num_workers=0
    )
    cls = find_trainer(name)
    assert issubclass(cls, ColipriTrainer) and cls.__name__ == name
    trainer = cls(load_plans("Dataset950_Tiny"), "3d_lowres", 0, run, torch.device("cpu"), options)
    trainer.run_training()
    epoch = trainer.progress.history[-1]
    assert epoch["train"]["loss"] > 0 and "loss" in epoch["val"]
