"""Frozen and slower parts, and the decay of the rate from the top of a tower to its stem."""

from dataclasses import replace

import pytest
import torch
from tiny_dataset import PLANS

from colipri.architectures.model import ColipriModel
from colipri.common.errors import ColipriError
from colipri.plans.plans import load_plans
from colipri.training.optim import build_optimizer, freeze_parts, learning_rate_factors

CONFIGURATION = load_plans(PLANS).configuration("3d_lowres")


def plan(**changes):
    """The example plan's training with other numbers."""
    return replace(CONFIGURATION.training, **changes)


@pytest.fixture
def model():
    return ColipriModel.from_plans(CONFIGURATION, 300)


def test_factors_of_parts_multiply_with_the_decay_of_layers(model):
    factor_of = learning_rate_factors(
        model,
        plan(
            text_learning_rate_factor=0.5,
            learning_rate_factors={"image_encoder": 0.1, "text_encoder.pooler": 2.0},
            layer_decay={"image_encoder": 0.7, "text_encoder": 0.9},
        ),
    )
    assert factor_of("image_projector.weight") == 1.0
    assert factor_of("logit_scale") == 1.0
    # two blocks: the last one step below the top, the stem three
    assert factor_of("image_encoder.eva.norm.weight") == pytest.approx(0.1)
    assert factor_of("image_encoder.eva.blocks.1.mlp.fc2.weight") == pytest.approx(0.1 * 0.7)
    assert factor_of("image_encoder.eva.blocks.0.norm1.bias") == pytest.approx(0.1 * 0.7**2)
    assert factor_of("image_encoder.down_projection.proj.weight") == pytest.approx(0.1 * 0.7**3)
    # one layer
    assert factor_of("text_encoder.encoder.encoder.layer.0.output.dense.weight") == (
        pytest.approx(0.5 * 0.9)
    )
    words = "text_encoder.encoder.embeddings.word_embeddings.weight"
    assert factor_of(words) == pytest.approx(0.5 * 0.9**2)
    assert factor_of("text_encoder.pooler.attention.in_proj_weight") == pytest.approx(1.0)


def test_every_parameter_of_the_towers_has_its_layer(model):
    """A name that no rule knows would silently train at the full rate."""
    factor_of = learning_rate_factors(model, plan(layer_decay=0.5, text_learning_rate_factor=1.0))
    full = [n for n, _ in model.named_parameters() if factor_of(n) == 1.0]
    assert not any(name.startswith("image_encoder.eva.blocks") for name in full)
    assert [name for name in full if name.startswith("image_encoder.")] == [
        "image_encoder.eva.norm.weight",
        "image_encoder.eva.norm.bias",
    ]


def test_the_optimiser_carries_the_factors(model):
    optimizer = build_optimizer(model, plan(layer_decay=0.5, text_learning_rate_factor=1.0))
    factors = sorted({group["lr_factor"] for group in optimizer.param_groups})
    assert factors == pytest.approx([0.125, 0.25, 0.5, 1.0])
    inside = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert inside == sum(p.numel() for p in model.parameters())


def test_a_frozen_part_does_not_train_and_has_no_dropout(model):
    freeze_parts(model, ["text_encoder", "image_encoder.down_projection"])
    model.train()
    assert not model.text_encoder.encoder.training
    assert not model.image_encoder.down_projection.training
    assert model.image_encoder.eva.training
    ids = torch.arange(20).view(2, 10) + 5
    first, second = (model.encode_text(ids, torch.ones_like(ids)) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    groups = build_optimizer(model, plan()).param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("text_encoder.", "image_encoder.down_projection."))
        assert (id(parameter) in trained) != frozen, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 1.5}, "layer_decay must be a number above 0 and at most 1"),
        ({"layer_decay": {"decoder": 0.5}}, "no tower decoder; image_encoder, text_encoder"),
        ({"learning_rate_factors": {"vision": 0.1}}, "the model has no part 'vision'; it has im"),
        ({"learning_rate_factors": {"image_encoder": 0}}, "image_encoder must be a number above 0"),
    ],
)
def test_wrong_numbers_are_named(model, settings, message):
    with pytest.raises(ColipriError, match=message):
        learning_rate_factors(model, plan(**settings))


def test_wrong_parts_are_named(model):
    with pytest.raises(ColipriError, match=r"training.frozen: the model has no part 'text'"):
        freeze_parts(model, ["text"])
    freeze_parts(model, [name for name, _ in model.named_children()])
    for parameter in (model.logit_scale, model.logit_bias):
        parameter.requires_grad_(False)
    with pytest.raises(ColipriError, match="nothing is left to train"):
        build_optimizer(model, plan())
