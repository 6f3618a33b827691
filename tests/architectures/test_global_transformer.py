"""The transformer over a scan's cells: the identity at first, and blind to padding and air."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_dataset import PLANS

from colipri.architectures.global_transformer import GlobalTransformer, merge_to_cells
from colipri.architectures.model import ColipriModel
from colipri.common.errors import ColipriError
from colipri.cost.memory import global_transformer_parameters
from colipri.features.merging import merge_tokens
from colipri.plans.architecture import GlobalTransformerPlan
from colipri.plans.plans import Configuration

PLAN = GlobalTransformerPlan(cells_per_axis=3, num_layers=2, num_heads=4)
GRID = (5, 4, 2)


def draw(batch: int = 2, count: int = 17, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, K, D) and their positions (B, K, 3), no two at one place."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.stack(
        [torch.randperm(int(np.prod(GRID)), generator=generator)[:count] for _ in range(batch)]
    )
    positions = torch.stack(torch.unravel_index(flat, GRID), dim=-1)
    return torch.randn(batch, count, dim, generator=generator), positions


def trained(dim: int = 16) -> GlobalTransformer:
    """A transformer whose layers do something."""
    torch.manual_seed(1)
    transformer = GlobalTransformer(dim, PLAN)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return transformer


def test_cells_are_those_of_stored_features() -> None:
    tokens, positions = draw()
    cells, mask, place = merge_to_cells(tokens, None, positions, GRID, 3)
    for row in range(2):
        means, where, _ = merge_tokens(tokens[row].numpy(), positions[row].numpy(), GRID, 27)
        flat = (where[:, 0] * 3 + where[:, 1]) * 3 + where[:, 2]
        assert mask[row].nonzero().flatten().tolist() == flat.tolist()
        np.testing.assert_allclose(cells[row, flat].numpy(), means, rtol=1e-6, atol=1e-6)
    assert place.shape == (2, 17)


def test_it_starts_as_the_identity_and_then_is_none() -> None:
    tokens, positions = draw()
    torch.manual_seed(0)
    fresh = GlobalTransformer(16, PLAN)
    cells, mask, added = fresh.of_tokens(tokens, None, positions, GRID)
    merged = merge_to_cells(tokens, None, positions, GRID, 3)[0]
    assert torch.equal(cells, merged) and not added.any() and mask.any()
    fresh(cells, mask).square().sum().backward()
    assert all(block.out.weight.grad.abs().sum() > 0 for block in fresh.blocks)
    assert trained().of_tokens(tokens, None, positions, GRID)[2].abs().max() > 0.1


def test_padding_and_the_order_of_tokens_change_nothing() -> None:
    tokens, positions = draw()
    transformer = trained()
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1, 9:] = False
    padded = tokens.clone()
    padded[1, 9:] = 1e4
    cells, held, _ = transformer.of_tokens(padded, mask, positions, GRID)
    alone, held_alone, _ = transformer.of_tokens(tokens[1:, :9], None, positions[1:, :9], GRID)
    assert torch.equal(held[1], held_alone[0])
    torch.testing.assert_close(cells[1][held[1]], alone[0][held_alone[0]])
    order = torch.randperm(17)
    turned, _, _ = transformer.of_tokens(tokens[:1, order], None, positions[:1, order], GRID)
    whole, held, _ = transformer.of_tokens(tokens[:1], None, positions[:1], GRID)
    torch.testing.assert_close(turned[held], whole[held])


def configuration(**changes: object) -> Configuration:
    content = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]
    return replace(Configuration.from_dict(content), **changes)


def test_a_model_with_it_pools_the_same_from_images_and_from_tokens() -> None:
    plan = GlobalTransformerPlan(cells_per_axis=2, num_layers=1, num_heads=2)
    torch.manual_seed(0)
    model = ColipriModel.from_plans(configuration(global_transformer=plan), 300).eval()
    for parameter in model.image_transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.randn(2, 1, 32, 24, 40)
    ids = torch.tensor([[0, 7, 21, 50], [3, 8, 59, 0]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    features = model.encode_image(image, ids, mask)
    positions = torch.stack(torch.unravel_index(ids, (4, 3, 5)), dim=-1)
    again = model.pool_image(features.tokens, mask, positions, (4, 3, 5))
    torch.testing.assert_close(features.embedding, again)
    whole = model.encode_image(image)
    assert whole.tokens.shape[1] == 60
    dense = model.project_tokens(features.tokens[:1], positions[:1], (4, 3, 5))
    plain = configuration()
    without = ColipriModel.from_plans(plain, 300)
    assert without.image_transformer is None
    assert not any("image_transformer" in name for name in without.state_dict())
    model.image_transformer = None
    assert (model.project_tokens(features.tokens[:1]) - dense).abs().max() > 1e-3


def test_parameters_are_counted_and_heads_are_checked() -> None:
    counted = sum(p.numel() for p in GlobalTransformer(16, PLAN).parameters())
    assert global_transformer_parameters(16, PLAN) == counted
    with pytest.raises(ColipriError, match="num_heads 5 does not divide"):
        configuration(global_transformer=replace(PLAN, num_heads=5))
    content = configuration(global_transformer=PLAN).to_dict()
    assert Configuration.from_dict(content).global_transformer == PLAN
