"""Packed rows are exact, image tokens keep their place, and plans count right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from colipri.common.errors import ColipriError
from colipri.features.shards import CaseFeatures
from colipri.writers.language_model import (
    add_lora,
    hidden_width,
    language_model_config,
    load_language_model,
    lora_weights,
)
from colipri.writers.packing import Sample, pack, row_loss
from colipri.writers.planning import WriterPlan, measure_language_model
from colipri.writers.projector import (
    ImageProjector,
    check_image_tokens,
    pooled_image_tokens,
    stored_image_tokens,
)

CPU = torch.device("cpu")


def _samples(number: int = 4) -> list[Sample]:
    random = torch.Generator().manual_seed(0)
    made = []
    for index in range(number):
        count = 3 + index
        tokens = torch.randn(count, 12, generator=random)
        places = torch.rand(count, 3, generator=random) * 2 - 1
        target = tuple(range(10, 14 + 2 * index))
        made.append(Sample(f"c{index}", tokens, places, (5, 6, 7), target))
    return made


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_have_the_loss_and_gradient_of_single_ones(
    tiny_llama: Path, checkpointing: bool
) -> None:
    model, _ = load_language_model(str(tiny_llama), CPU)
    model.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.train()
    torch.manual_seed(0)
    projector = ImageProjector(12, hidden_width(model))
    found = []
    for row_tokens in (1, 30, 10_000):
        projector.zero_grad()
        rows = pack(_samples(), row_tokens)
        losses = [row_loss(model, projector, row, CPU) for row in rows]
        loss = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
        loss.backward()
        found.append((len(rows), loss.item(), projector.first.weight.grad.clone()))
    assert [rows for rows, _, _ in found] == [4, 3, 1] or (found[0][0] == 4 and found[2][0] == 1)
    for _, loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][2], rtol=1e-4, atol=1e-6)


def test_the_report_tokens_alone_are_predicted(tiny_llama: Path) -> None:
    model, _ = load_language_model(str(tiny_llama), CPU)
    projector = ImageProjector(12, hidden_width(model))
    (sample,) = _samples(1)
    loss, count = row_loss(model, projector, [sample], CPU)
    assert count == len(sample.target)
    ids = torch.tensor([*sample.prompt, *sample.target])
    image = projector(sample.tokens, sample.places)
    inputs = torch.cat([image, model.get_input_embeddings()(ids)])[None]  # type: ignore[operator]
    logits = model(inputs_embeds=inputs).logits[0]
    ignored = len(sample.tokens) + len(sample.prompt)
    expected = torch.nn.functional.cross_entropy(
        logits[ignored - 1 : -1], torch.tensor(sample.target), reduction="sum"
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_a_place_changes_the_projection_and_a_scale_does_not() -> None:
    projector = ImageProjector(12, 8)
    tokens = torch.randn(2, 12)
    left, right = torch.tensor([[0.0, 0, -1]] * 2), torch.tensor([[0.0, 0, 1]] * 2)
    assert not torch.allclose(projector(tokens, left), projector(tokens, right))
    torch.testing.assert_close(projector(tokens, left), projector(100 * tokens, left))


def test_pooled_tokens_are_means_with_places() -> None:
    positions = np.array([[0, 0, 0], [0, 0, 1], [3, 3, 3]])
    tokens = np.array([[1.0, 0], [3.0, 0], [5.0, 7.0]], dtype=np.float32)
    means, places = pooled_image_tokens(tokens, positions, (4, 4, 4), 8)
    assert means.tolist() == [[2.0, 0.0], [5.0, 7.0]]
    assert places.tolist() == [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
    case = CaseFeatures(
        "c", "s", tokens.astype(np.float16), positions, np.ones(3), (4, 4, 4), (0, 0, 0), {}
    )
    again, where = stored_image_tokens(case, 0, 8)
    assert again.tolist() == means.tolist()
    assert where.tolist() == places.tolist()
    with pytest.raises(ColipriError, match="--tokens 8"):
        stored_image_tokens(case, 27, 8)


@pytest.mark.parametrize("number", [1, 63, 1000])
def test_other_numbers_of_image_tokens_are_refused(number: int) -> None:
    with pytest.raises(ColipriError, match="cube number from 8 to 512"):
        check_image_tokens(number)


def test_the_plan_counts_arithmetic_and_weights(tiny_llama: Path) -> None:
    size = measure_language_model(language_model_config(str(tiny_llama)))
    model, _ = load_language_model(str(tiny_llama), CPU)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    wrapped = add_lora(model, 4)
    assert size.lora_per_rank * 4 == sum(p.numel() for p in lora_weights(wrapped).values())
    plan = WriterPlan(size, 12, 27, 100, 10, (1, 1), 4, 127, False, 4)
    projector = ImageProjector(12, hidden_width(model))
    trained = sum(p.numel() for p in projector.parameters()) + size.lora_per_rank * 4
    assert plan.trained_parameters() == trained
    base: Any = load_language_model(str(tiny_llama), CPU)[0]
    base.set_attn_implementation("eager")  # the counter does not know the fused attention of CPUs
    sample = Sample("c", torch.randn(27, 12), torch.zeros(27, 3), (5,), tuple([6] * 99))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        row_loss(base, projector, [sample], CPU)
    assert plan.forward_flops() == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert plan.training_flops() == pytest.approx(2 * 20 * plan.forward_flops())
