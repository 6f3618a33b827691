"""The memory model against bytes that autograd really keeps, counted with saved-tensor hooks."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.saved_tensors import count_saved_bytes
from experiment_planning.configurations import make_configuration
from experiment_planning.cuda_rules import fake_cuda

from colipri.architectures.model import ColipriModel
from colipri.cost import memory
from colipri.cost.memory import activation_parts, estimate_memory
from colipri.experiment_planning.memory_planning import planned_memory
from colipri.experiment_planning.training_cost import planned_objectives
from colipri.objectives.base import HeadSizes
from colipri.objectives.registry import add_heads
from colipri.plans.plans import Configuration

# Small, so that a count takes a fraction of a second; the constants do not depend on size.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "linear, no checkpointing": {},
    "linear, wide and short": {"patch": (16, 64, 24), "embed_dim": 396, "num_heads": 6},
    "linear, Primus-M's width": {"patch": (24, 16, 48), "embed_dim": 864, "num_heads": 12},
    "linear, 8 blocks": {"depth": 8, "patch": (40, 24, 16)},
    "linear, MLP halves": {"checkpointing": "mlp", "depth": 4},
    "linear, MLP halves, wide": {
        "checkpointing": "mlp",
        "embed_dim": 396,
        "num_heads": 6,
        "depth": 4,
    },
    "linear, whole blocks": {"checkpointing": "full", "depth": 6},
    "linear, whole blocks, wide": {"checkpointing": "full", "embed_dim": 396, "num_heads": 6},
    "two channels": {"input_channels": 2, "checkpointing": "full"},
    "light stem": {"stem": "light", "patch": (32, 40, 24)},
    "light stem, whole blocks": {"stem": "light", "checkpointing": "full"},
    "light stem, other widths": {
        "stem": "light",
        "stem_kwargs": {"features": [8, 32, 48], "depth_per_level": [1, 1, 2]},
    },
    "light stem with context": {
        "stem": "light",
        "stem_kwargs": {"context": 64},
        "patch": (64, 48, 64),
    },
    "residual stem": {"stem": "resnet", "patch": (32, 48, 24)},
    "residual stem, deep, projected": {
        "stem": "resnet",
        "stem_kwargs": {"base_features": 12, "depth_per_level": [2, 1, 2]},
        "patch": (64, 48, 32),
    },
    "v2 stem": {"stem": "v2", "patch": (24, 32, 16)},
    "v2 stem, MLP halves": {"stem": "v2", "checkpointing": "mlp", "patch": (32, 16, 24)},
    "v2 stem, narrow and deep": {
        "stem": "v2",
        "stem_kwargs": {"base_features": 16, "depth_per_level": [1, 2, 2]},
    },
    "v3 stem": {"stem": "v3", "patch": (24, 16, 32)},
    "v3 stem, whole blocks": {"stem": "v3", "checkpointing": "full", "patch": (16, 24, 16)},
    "flat tokens": {"stem": "v2", "token_patch": (4, 8, 8), "patch": (16, 24, 32)},
    "large text": {"text": (192, 4, 4), "max_text_tokens": 128, "patch": (16, 24, 16)},
    "small shared space": {"shared": 48, "checkpointing": "full"},
    "deep report decoder": {"decoder_depth": 6, "checkpointing": "full", "patch": (40, 32, 40)},
}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, precision)
        for number, name in enumerate(COMBINATIONS)
        for precision in memory.PRECISIONS
        if precision != "cpu_bf16" or number % 2  # every second is enough of what no plan uses
    ],
)
def test_activations_within_ten_per_cent(name: str, precision: str) -> None:
    configuration = make_configuration(**COMBINATIONS[name])
    counted = _count_per_pair(configuration, precision)
    predicted = sum(_parts(configuration, precision).values())
    assert predicted == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "cpu_bf16", "bf16"])
@pytest.mark.parametrize(
    ("size", "length"), [((96, 2, 2), 32), ((192, 3, 4), 96), ((384, 2, 6), 64)]
)
def test_text_tower_within_ten_per_cent(
    size: tuple[int, int, int], length: int, precision: str
) -> None:
    """By itself: in the whole step the image tower would hide an error."""
    configuration = make_configuration(text=size, max_text_tokens=length)
    counted = _count_per_pair(configuration, precision, with_image=False)
    assert activation_parts(configuration, precision)["text"] == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("stem", ["linear", "light", "resnet", "v2", "v3"])
def test_parameters_are_those_of_the_model(stem: str) -> None:
    configuration = make_configuration(stem=stem, input_channels=2, decoder_depth=2)
    training = configuration.training
    objectives = {**training.objectives, "masked_image_modelling": {"target": "auto"}}
    configuration = replace(configuration, training=replace(training, objectives=objectives))
    model = _model(configuration)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        heads = ("report_decoder", "masked_decoder", "masked_teacher")
        part = part if part in heads else "towers"
        counts[part] = counts.get(part, 0) + parameter.numel()
    frozen = counts.pop("masked_teacher", 0)
    assert frozen == (0 if stem == "linear" else _encoder_parameters(model))
    assert counts == {
        "towers": memory.model_parameters(configuration),
        **{
            objective.head_names[0]: objective.head_parameters(configuration)
            for objective in planned_objectives(configuration).values()
            if objective.head_names
        },
    }
    estimate = planned_memory(configuration, "fp32")
    assert estimate.parameters == 16 * sum(counts.values()) + 4 * frozen


def _encoder_parameters(model: ColipriModel) -> int:
    return sum(p.numel() for p in model.image_encoder.parameters())


def test_recomputation_is_what_the_difference_says() -> None:
    """While a block is recomputed, it needs what it would have kept without checkpointing."""
    none, full = (make_configuration(checkpointing=level, depth=1) for level in ("none", "full"))
    kept = activation_parts(none)["blocks"]
    assert activation_parts(full)["blocks"] + estimate_memory(full).live == pytest.approx(kept)
    assert estimate_memory(none).live == 0


def test_estimate_adds_up() -> None:
    configuration = replace(make_configuration(checkpointing="mlp"), micro_batch_size=3)
    estimate = planned_memory(configuration)
    activations = 3 * (estimate.per_sample + estimate.live)
    assert estimate.total == estimate.parameters + estimate.overhead + activations
    assert sum(estimate.parts.values()) == estimate.per_sample
    shown = estimate.as_gigabytes()
    assert shown["total_in_gb"] == pytest.approx(estimate.total / memory.GIB, abs=1e-3)
    assert list(shown["parts_of_a_sample_in_gb"]) == [
        *("stem", "blocks", "heads", "text", "report_generation", "image")
    ]


def test_further_objectives_have_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an objective needs is added where the plan names it, and only there."""
    (tmp_path / "writing.py").write_text(
        "from dataclasses import dataclass\n\n"
        "from colipri.objectives.base import Objective\n\n\n"
        "@dataclass\n"
        "class Writing(Objective):\n"
        '    letter = "W"\n'
        '    name = "writing"\n\n'
        "    def batch_loss(self, batch):\n"
        "        return batch.image.sum(), {}\n\n"
        "    def activation_bytes(self, configuration, precision):\n"
        "        return 10.0 * configuration.max_text_tokens\n"
    )
    monkeypatch.setenv("colipri_ext", str(tmp_path))
    plain = make_configuration()
    objectives = {**plain.training.objectives, "writing": {"weight": 1.0}}
    more = replace(plain, training=replace(plain.training, objectives=objectives))
    assert "writing" not in planned_memory(plain).parts
    assert planned_memory(more).parts["writing"] == 320.0


def _parts(configuration: Configuration, precision: str) -> dict[str, float]:
    """Activations of a pair, without the image itself."""
    parts = planned_memory(configuration, precision).parts
    return {name: value for name, value in parts.items() if name != "image"}


def _count_per_pair(configuration: Configuration, precision: str, with_image: bool = True) -> float:
    """Bytes that one more pair makes autograd keep in a forward pass of both towers."""
    model = _model(configuration)
    if precision == "bf16":
        with fake_cuda(model):
            counts = [_count(model, configuration, size, precision, with_image) for size in (1, 2)]
    else:
        counts = [_count(model, configuration, size, precision, with_image) for size in (1, 2)]
    return counts[1] - counts[0]


def _model(configuration: Configuration) -> ColipriModel:
    """What colipri_train trains by default."""
    torch.manual_seed(0)
    model = ColipriModel.from_plans(configuration, 300)
    sizes = HeadSizes.of_model(model, configuration, 300)
    add_heads(model, planned_objectives(configuration), sizes)
    return model.train()


def _count(
    model: ColipriModel, configuration: Configuration, size: int, precision: str, with_image: bool
) -> int:
    patch = configuration.patch_size
    channels = configuration.encoder.input_channels
    grid = tuple(a // b for a, b in zip(patch, configuration.token_patch_size, strict=True))
    image = torch.zeros(size, channels, *patch)
    ids = torch.ones(size, configuration.max_text_tokens, dtype=torch.long)
    mask = torch.ones_like(ids)
    positions = torch.zeros(prod(grid), 3, dtype=torch.long)  # no cached table enters the count

    def forward() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "cpu_bf16"):
            kept = [model.encode_text(ids, mask)]
            if with_image:
                tokens, _ = model.image_encoder.tokenize(image)
                encoded = model.image_encoder.encode(tokens, positions)
                kept.append(model.pool_image(encoded))
                kept.append(model.report_decoder(ids, encoded))
        return kept

    return count_saved_bytes(forward, model.parameters())
