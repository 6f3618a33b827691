"""Model FLOPs of the log and of the plan against torch's own counter, per objective in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import mapped, mapped_folders
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training.test_family import trainer_of

from colipri.experiment_planning.training_cost import training_flops
from colipri.training.throughput import ModelFlops

__all__ = ["mapped", "mapped_folders"]
BATCH = 4  # of the example plan


def _trainer(letters: str, folder: Path, **options: Any) -> Any:
    """A family member on whole batches: nothing is computed twice, so the counters agree."""
    options = {"micro_batch_size": BATCH, "seed": 3} | options
    trainer = trainer_of(f"ColipriTrainer_{letters}", folder, **options)
    trainer.initialize()
    trainer.data.start_training(0)
    return trainer


def _counted(trainer: Any, batch: Any) -> float:
    # torch's counter does not know the CPU's fused attention, but the products it is made of
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.backward(batch, 1, {})
    return float(counter.get_total_flops())


@pytest.mark.parametrize("letters", ["C", "CR", "CM", "CRM", "M", "CRMO", "CL"])
def test_counted_per_objective_within_ten_per_cent(letters: str, tiny: Any, tmp_path: Path) -> None:
    options = {"objective_options": {"L.fewest_studies": 1}} if "L" in letters else {}
    trainer = _trainer(letters, tmp_path, **options)
    expected = [_counted(trainer, trainer.data.next_batch()) for _ in range(3)]
    found = trainer.flops_per_sample() * BATCH
    assert found == pytest.approx(sum(expected) / len(expected), rel=0.1)


def test_the_tokens_of_label_maps_count(mapped: Any, tmp_path: Path) -> None:
    options = {"objective_options": {"L.fewest_studies": 1, "S.fewest_cases_shown": 1}}
    trainer = _trainer("CLS", tmp_path, **options)
    batches = [trainer.data.next_batch() for _ in range(3)]
    counted = sum(_counted(trainer, batch) for batch in batches) / len(batches)
    assert trainer.flops_per_sample() * BATCH == pytest.approx(counted, rel=0.1)
    planned = training_flops(
        trainer.configuration, trainer.encoder.mean_tokens(), trainer.objectives
    )
    asked = _counted(trainer, batches[0])
    del trainer.step.on_pairs["finding_segmentation"]
    without = _counted(trainer, batches[0])
    cases = len(batches[0].paired_rows)
    assert planned["finding_segmentation"] * cases == pytest.approx(asked - without, rel=0.15)


def test_recomputation_does_not_count(tiny: Any, tmp_path: Path) -> None:
    found, counted = [], []
    for size in (BATCH, 1):
        trainer = _trainer("C", tmp_path, micro_batch_size=size)
        counted.append(_counted(trainer, trainer.data.next_batch()))
        found.append(trainer.flops_per_sample())
    assert counted[1] > 1.2 * counted[0]  # each pair is encoded twice
    assert found[1] == pytest.approx(found[0], rel=0.05)  # a case alone needs no fillers


def test_what_is_not_a_training_step_does_not_count(tiny: Any, tmp_path: Path) -> None:
    trainer = _trainer("CRM", tmp_path)
    batch = trainer.data.next_batch()
    trainer.backward(batch, 1, {})
    once = trainer.flops_per_sample()
    trainer.run_validation()
    with torch.enable_grad():
        trainer.encoder.encode_tokens(
            {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        )
    assert trainer.flops_per_sample() == once
    for parameter in trainer.model.text_encoder.parameters():
        parameter.requires_grad_(False)
    trainer.model_flops = ModelFlops(trainer.model, trainer.configuration, trainer.objectives)
    trainer.backward(batch, 1, {})
    assert trainer.flops_per_sample() < once


@pytest.mark.parametrize("letters", ["C", "CR", "CM", "CRM"])
def test_the_plan_predicts_what_the_log_counts(letters: str, tiny: Any, tmp_path: Path) -> None:
    trainer = _trainer(letters, tmp_path)
    batch = trainer.data.next_batch()
    tokens = trainer.tokenizer(batch.caption, padding="longest", return_tensors="pt")
    _counted(trainer, batch)
    planned = training_flops(
        replace(trainer.configuration, max_text_tokens=tokens["input_ids"].shape[1]),
        trainer.encoder.mean_tokens(),
        trainer.objectives,
    )
    assert set(planned) == {"towers", *trainer.objectives} - {"contrastive"}
    cases = dict.fromkeys(planned, len(batch.paired_rows))
    cases["masked_image_modelling"] = len(batch)  # those without a report as well
    expected = sum(flops * cases[name] for name, flops in planned.items())
    assert expected == pytest.approx(trainer.flops_per_sample() * BATCH, rel=0.1)
