import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from colipri.common.devices import computes_bf16
from colipri.plans.plans import load_plans
from colipri.training.optim import (
    build_optimizer,
    learning_rate,
    learning_rate_factors,
    parameter_groups,
    set_learning_rate,
)
from colipri.training.options import RunOptions
from colipri.training.throughput import format_duration

EXAMPLE_PLANS = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"


def test_warm_up_rises_linearly_and_the_cosine_falls_to_its_end():
    rates = [learning_rate(i, 1e-3, 10, 110) for i in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[110] == pytest.approx(1e-5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder = nn.Linear(3, 3)
        self.text_encoder = nn.ModuleDict(
            {"embeddings": nn.Embedding(4, 3), "norm": nn.LayerNorm(3), "dense": nn.Linear(3, 3)}
        )
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)


def example_training():
    return load_plans(EXAMPLE_PLANS).configuration("3d_lowres").training


def test_only_matrices_are_decayed_and_every_trainable_parameter_is_in_one_group():
    model = Model()
    plan = replace(example_training(), text_learning_rate_factor=0.25)
    groups = parameter_groups(model, 0.1, learning_rate_factors(model, plan))
    sizes = {
        (group["lr_factor"], group["weight_decay"]): sum(p.numel() for p in group["params"])
        for group in groups
    }
    assert sizes == {(1.0, 0.1): 9, (1.0, 0.0): 4, (0.25, 0.1): 9, (0.25, 0.0): 12 + 6 + 3}
    assert sum(sizes.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_each_tower_gets_its_share_of_the_rate():
    plan = replace(example_training(), text_learning_rate_factor=0.5)
    optimizer = build_optimizer(Model(), plan)
    set_learning_rate(optimizer, 0.2)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.1, 0.2]


def test_a_short_run_shortens_the_warm_up_with_it():
    plan = load_plans(EXAMPLE_PLANS).configuration("3d_lowres")
    training = replace(
        plan.training,
        num_epochs=100,
        num_iterations_per_epoch=250,
        warmup_iterations=1000,
        objectives={"contrastive": {"weight": 1.0, "kind": "infonce"}},
    )
    plan = replace(plan, training=training)
    short = RunOptions.from_stored(  # as a checkpoint of version 0.2.0 has it
        {"epochs": 1, "iterations_per_epoch": 25, "contrastive_kind": "siglip"}
    )
    settings = short.apply(plan).training
    assert settings.warmup_iterations == 1
    objectives = short.objective_settings(settings.objectives)
    assert objectives["contrastive"] == {"weight": 1.0, "kind": "siglip"}
    assert plan.training.objectives["contrastive"]["kind"] == "infonce"
    assert RunOptions().apply(plan).training.warmup_iterations == 1000


def test_durations_read_like_speech():
    assert format_duration(75) == "1 min 15 s"
    assert format_duration(90061) == "1 d 1 h 1 min"


def test_the_precision_of_a_run_is_stored_and_kept():
    """It is decided once. Version 0.2.0 stored "auto", which was float32 on a CPU."""
    cpu = torch.device("cpu")
    chosen = RunOptions().with_precision(cpu).precision
    assert chosen == ("bf16" if computes_bf16(cpu) else "fp32")
    assert RunOptions.from_stored({"precision": chosen}, cpu).precision == chosen
    assert RunOptions.from_stored({"precision": "auto"}, cpu).precision == "fp32"
    assert RunOptions(precision="fp32").with_precision(cpu).precision == "fp32"
