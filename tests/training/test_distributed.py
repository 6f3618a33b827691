"""Two and three processes compute what one process computes: losses, every gradient, trainings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from training.distributed_work import (
    STEPS,
    all_steps,
    all_tower_gradients,
    compiled_step,
    state_before_a_step,
    step_gradients,
    together,
    tower_gradients,
    train,
)
from training.test_family import trainer_of

from colipri.objectives.contrastive import KINDS
from colipri.training.distributed.processes import Processes

SIZES = (2, pytest.param(3, marks=pytest.mark.slow))


@cache
def results(work: Callable[..., Any], size: int, folder: Path) -> Path:
    """What so many processes wrote, computed once."""
    target = folder / f"{work.__name__}{size}"
    target.mkdir()
    together(size, work, target)
    return target


@cache
def alone(name: str, folder: Path) -> dict[str, Any]:
    return step_gradients(name, folder)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_double_precision_for_every_parameter(kind, chunk, size, tmp_path_factory) -> None:
    """C and O, and a loss of single cases; 10 pairs and 7 sentences are no multiple of anything,
    and in one part of 10 all but one process have nothing to encode."""
    whole = tower_gradients(Processes(), kind, 10)
    folder = results(all_tower_gradients, size, tmp_path_factory.getbasetemp())
    for rank in range(size):
        parts = torch.load(folder / f"{kind}_{chunk}_{rank}.pt", weights_only=True)
        assert torch.allclose(parts["loss"], whole["loss"], rtol=1e-12)
        for name, gradient in whole["gradients"].items():
            if gradient is None:  # of a parameter that is not used
                assert parts["gradients"][name] is None, name
            else:
                close = torch.allclose(parts["gradients"][name], gradient, rtol=1e-9, atol=1e-13)
                assert close, name
        assert whole["gradients"]["unused"] is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_step_of_all_objectives_with_its_random_numbers(
    name, size, parallel, tiny, tmp_path_factory
) -> None:
    """C, R, M and O of a real model, with augmentation, drop path and dropout."""
    folder = tmp_path_factory.getbasetemp()
    whole, written = alone(name, folder), results(all_steps, size, folder)
    images = 0
    for rank in range(size):
        parts = torch.load(written / f"{name}_{parallel}_{rank}.pt", weights_only=True)
        assert torch.allclose(parts["loss"], whole["loss"], rtol=1e-5)
        assert torch.allclose(parts["norm"], whole["norm"], rtol=1e-4)
        assert parts["terms"].keys() == whole["terms"].keys()
        for term, value in whole["terms"].items():
            assert torch.allclose(parts["terms"][term], value, rtol=1e-5), term
        for observed, value in whole["observed"].items():
            assert torch.allclose(parts["observed"][observed], value, rtol=1e-4), observed
        assert any(parts["gradients"]) and parts["gradients"].keys() <= whole["gradients"].keys()
        for parameter, gradient in parts["gradients"].items():
            expected = whole["gradients"][parameter]
            if expected is None:
                assert gradient is None, parameter
            else:  # float32; parts are the same, only sums have another order
                # a bias before an instance norm has no gradient but rounding
                size_of = expected.norm().clamp_min(1e-3 * whole["norm"])
                error = (gradient - expected).norm() / size_of
                assert error < 1e-3, parameter
        images += parts["images"]
    for rank in range(size):  # a tower's gradients travel once, however many parts a step has
        parts = torch.load(written / f"{name}_{parallel}_{rank}.pt", weights_only=True)
        if parallel == "ddp":
            assert parts["exchanges"] == 0
        elif "D" not in STEPS[name][0]:
            assert parts["exchanges"] == parts["units"]
            decoders = {"image_pooler", "report_decoder", "masked_decoder"}
            assert set(parts["sharded"]) == {"image_encoder", "text_encoder", *decoders}
        else:  # self-distillation encodes an image and its crops in one pass of a part
            assert parts["units"] < parts["exchanges"] <= 3 * parts["units"]
    if parallel == "ddp":
        assert images == whole["images"]  # each image was read by one process


@pytest.mark.slow
def test_sharded_towers_with_compiled_blocks(tiny, tmp_path) -> None:
    whole = step_gradients("infonce", tmp_path)
    together(2, compiled_step, tmp_path)
    for rank in range(2):
        parts = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(parts["loss"], whole["loss"], rtol=1e-5)
        assert torch.allclose(parts["norm"], whole["norm"], rtol=1e-4)
        assert parts["exchanges"] == parts["units"]


@pytest.mark.slow
def test_two_then_three_then_one_process_is_one_training(tiny, tmp_path) -> None:
    """Stopped by a signal to one process; whole weights, shards and one process follow up."""
    whole = train(Processes(), tmp_path / "whole")
    together(2, train, tmp_path / "parts", 3)
    together(3, train, tmp_path / "parts", 5, "fsdp")
    for rank in range(3):  # weights, both moments and their average: a third, and rounding up
        held = torch.load(tmp_path / "parts" / f"bytes_{rank}.pt", weights_only=True)
        assert 0.25 < held["towers"] / held["whole towers"] < 0.4, held
    parts = train(Processes(), tmp_path / "parts")
    samples = sorted(file.name for file in (tmp_path / "parts" / "generated_reports").iterdir())
    assert samples == [f"epoch_{epoch:04d}.jsonl" for epoch in range(3)]
    for first, second in zip(whole.progress.history, parts.progress.history, strict=True):
        for kind in ("train", "val"):
            assert second[kind] == pytest.approx(first[kind], rel=1e-2, abs=1e-3)
    other = parts.model.state_dict()
    for name, value in whole.model.state_dict().items():
        # AdamW turns gradients that are nothing but rounding into steps of the learning rate
        assert torch.allclose(value, other[name], rtol=1e-3, atol=2e-3), name


@pytest.mark.slow
def test_a_sharded_run_that_makes_no_step_saves_the_moments_it_was_given(tiny, tmp_path) -> None:
    trainer_of("ColipriTrainer_C", tmp_path, micro_batch_size=1).run_training()
    given = torch.load(tmp_path / "checkpoint_final.pth", weights_only=True)["optimizer_state"]
    together(2, state_before_a_step, tmp_path)
    kept = torch.load(tmp_path / "state_0.pt", weights_only=True)
    assert given["state"] and kept["state"].keys() == given["state"].keys()
    for number, moments in given["state"].items():
        for name, value in moments.items():
            assert torch.equal(kept["state"][number][name], value), (number, name)
    other = torch.load(tmp_path / "state_1.pt", weights_only=True)
    assert other["state"] == {}, "whole moments in a process that does not save them"
