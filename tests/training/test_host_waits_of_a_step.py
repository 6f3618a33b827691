"""The host waits for the device once per augmented part, although parts are encoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_family import trainer_of

from colipri.training import batch_encoder


def test_a_part_that_is_encoded_twice_is_waited_for_once(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is which tokens hold body after augmentation; the sizes of all tensors that
    follow depend on it, so it cannot be left on the device."""
    options = {"batch_size": 4, "micro_batch_size": 2}
    trainer = trainer_of("ColipriTrainer_C", tmp_path, **options)
    trainer.initialize()
    trainer.data.start_training(0)
    augment, cpu = batch_encoder.augment_on_device, torch.Tensor.cpu
    made: dict[int, torch.Tensor] = {}
    read: list[torch.Tensor] = []

    def augmented(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        image, body = augment(*arguments)
        made[id(body)] = body
        return image, body

    def reading(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if id(tensor) in made:
            read.append(tensor)
        return cpu(tensor, *arguments, **options)

    monkeypatch.setattr(batch_encoder, "augment_on_device", augmented)
    monkeypatch.setattr(torch.Tensor, "cpu", reading)
    for step in range(2):
        made.clear()
        read.clear()
        trainer.train_step(trainer.data.next_batch())
        bodies = list(made.values())
        assert len(bodies) == 4, "two parts, each encoded twice"
        assert len(read) == 2, f"step {step}: {len(read)} reads"
        for first, second in zip(bodies[:2], bodies[2:], strict=True):
            assert torch.equal(first, second), "the second pass sees what the first did"
