import numpy as np
import pytest
import torch
from architectures.tiny_encoder import striped_volume, tiny_encoder
from torch import nn

from colipri.architectures.packing import Packing
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.rope import grid_positions, rotation
from colipri.architectures.tokens import select_tokens

STEMS = ("linear", "light", "resnet", "v2", "v3")


@pytest.mark.parametrize("stem", STEMS)
def test_keeping_every_token_is_the_whole_image(stem: str):
    encoder, image = tiny_encoder(stem=stem), striped_volume(batch=2)
    whole = encoder(image)
    assert whole.shape == (2, 2 * 3 * 5, 48)
    ids_keep, attention_mask = select_tokens(torch.ones(2, 30, dtype=torch.bool))
    torch.testing.assert_close(
        encoder(image, ids_keep, attention_mask), whole, rtol=1e-5, atol=1e-5
    )


def test_the_order_of_the_token_list_does_not_matter_and_each_keeps_its_own_position():
    encoder, image = tiny_encoder(num_register_tokens=2), striped_volume()
    whole = encoder(image)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0)).unsqueeze(0)
    shuffled = encoder(image, order)
    torch.testing.assert_close(shuffled, whole[:, order[0]], rtol=1e-4, atol=1e-4)


def test_shifting_all_positions_changes_nothing_but_exchanging_axes_does():
    encoder = tiny_encoder()
    tokens, grid = encoder.tokenize(striped_volume())
    positions = grid_positions(grid)
    here = encoder.encode(tokens, positions)
    there = encoder.encode(tokens, positions + torch.tensor([7, 3, 11]))
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)
    rotated = encoder.encode(tokens, positions[:, [1, 0, 2]])
    assert (here - rotated).abs().max() > 0.1


def test_a_dropped_token_changes_the_others_and_positions_are_not_renumbered():
    encoder, image = tiny_encoder(), striped_volume()
    ids_keep = torch.tensor([[0, 7, 8, 13, 22, 29]])
    kept = encoder(image, ids_keep)
    tokens, grid = encoder.tokenize(image)
    by_hand = encoder.encode(tokens[:, ids_keep[0]], grid_positions(grid)[ids_keep[0]])
    torch.testing.assert_close(kept, by_hand)
    renumbered = encoder.encode(tokens[:, ids_keep[0]], grid_positions((1, 2, 3)))
    assert (kept - renumbered).abs().max() > 0.1
    assert (kept - encoder(image)[:, ids_keep[0]]).abs().max() > 0.1


def test_other_grids_with_the_same_weights():
    encoder = tiny_encoder()
    for shape in ((8, 8, 8), (16, 40, 24), (40, 8, 16)):
        grid = tuple(size // 8 for size in shape)
        image = striped_volume(shape)
        whole = encoder(image)
        assert whole.shape == (1, grid[0] * grid[1] * grid[2], 48)
        # a smaller image is the part of a larger one of which only these tokens are kept
        large = torch.zeros(1, 1, 40, 40, 40)
        large[:, :, : shape[0], : shape[1], : shape[2]] = image
        a, b, c = grid_positions(grid).unbind(1)
        ids_keep = ((a * 5 + b) * 5 + c).unsqueeze(0)
        torch.testing.assert_close(encoder(large, ids_keep), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("registers", [0, 2])
def test_a_ragged_batch_equals_single_items(registers: int):
    encoder = tiny_encoder(num_register_tokens=registers)
    image = striped_volume(batch=3)
    body = torch.rand(3, 30, generator=torch.Generator().manual_seed(4)) < torch.tensor(
        [[0.9], [0.5], [0.2]]
    )
    ids_keep, attention_mask = select_tokens(body)
    assert attention_mask is not None
    together = encoder(image, ids_keep, attention_mask)
    for item in range(3):
        own, none = select_tokens(body[item : item + 1])
        assert none is None
        alone = encoder(image[item : item + 1], own)
        torch.testing.assert_close(together[item, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-4)
        assert not together[item, alone.shape[1] :].any(), "fillers come back as zeros"


def test_fillers_reach_neither_output_nor_gradient():
    encoder = tiny_encoder()
    tokens = torch.randn(2, 4, 48, generator=torch.Generator().manual_seed(5))
    positions = grid_positions((1, 1, 4))
    attention_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    clean = encoder.encode(tokens, positions, attention_mask)
    spoiled = tokens.clone()
    spoiled[1, 2:] = float("nan")
    spoiled.requires_grad_()
    out = encoder.encode(spoiled, positions, attention_mask)
    assert torch.equal(out, clean)
    out.square().sum().backward()
    assert spoiled.grad is not None
    assert not spoiled.grad[1, 2:].any()
    assert spoiled.grad[1, :2].any()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_register_tokens_are_used_and_do_not_come_out():
    encoder, image = tiny_encoder(num_register_tokens=3), striped_volume()
    before = encoder(image)
    assert before.shape[1] == 30
    with torch.no_grad():
        encoder.register_tokens.mul_(-1.0)
    assert (encoder(image) - before).abs().max() > 0.01


def test_an_absolute_position_embedding_is_taken_by_position():
    encoder = tiny_encoder(position_grid=(2, 3, 5), num_register_tokens=1)
    assert encoder.eva.pos_embed is not None
    assert encoder.eva.pos_embed.shape == (1, 31, 48)
    image = striped_volume()
    ids_keep = torch.tensor([[3, 11, 29]])
    tokens, grid = encoder.tokenize(image)
    by_hand = tiny_encoder(num_register_tokens=1)
    by_hand.load_state_dict({k: v for k, v in encoder.state_dict().items() if k != "eva.pos_embed"})
    with torch.no_grad():
        by_hand.register_tokens.add_(encoder.eva.pos_embed[:, :1])
    added = (tokens + encoder.eva.pos_embed[:, 1:])[:, ids_keep[0]]
    expected = by_hand.encode(added, grid_positions(grid)[ids_keep[0]])
    torch.testing.assert_close(encoder(image, ids_keep), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="image is larger"):
        encoder(striped_volume((16, 24, 48)))


@pytest.mark.parametrize("stem", STEMS)
def test_every_parameter_gets_a_gradient(stem: str):
    encoder = tiny_encoder(stem=stem, num_register_tokens=1, position_grid=(2, 3, 5))
    # a plain sum would be constant: the last norm fixes mean and variance of a token
    weights = torch.randn(30, 48, generator=torch.Generator().manual_seed(6))
    (encoder(striped_volume()) * weights).sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_bf16_autocast_is_near_fp32():
    encoder, image = tiny_encoder(), striped_volume(batch=2)
    ids_keep, attention_mask = select_tokens(
        torch.arange(30).expand(2, 30) < torch.tensor([[20], [9]])
    )
    exact = encoder(image, ids_keep, attention_mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(image, ids_keep, attention_mask)
    assert torch.isfinite(rough).all()
    real = exact[0], rough[0].float()
    assert nn.functional.cosine_similarity(*real, dim=-1).min() > 0.99


@pytest.mark.parametrize("size", sorted(PRESETS))
def test_presets_are_the_sizes_of_the_paper(size: str):
    with torch.device("meta"):
        encoder = PrimusEncoder(input_channels=1, **PRESETS[size])
    total = sum(p.numel() for p in encoder.parameters())
    # of the encoder alone, from the formula 4 d^2 + 3 d floor(8 d / 3) per block and what is small
    d, depth = PRESETS[size]["embed_dim"], PRESETS[size]["depth"]
    hidden = int(d * 8 / 3)
    block = 4 * d * d + 3 * d + 3 * d * hidden + 2 * hidden + d + 2 * hidden + 3 * 2 * d + 2 * d
    assert total == depth * block + 2 * d + 512 * d + d


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match=r"\(16, 20, 40\) is not a multiple of the token patch"):
        tiny_encoder()(torch.zeros(1, 1, 16, 20, 40))
    with pytest.raises(ValueError, match="activation_checkpointing must be one of none, mlp, full"):
        tiny_encoder(activation_checkpointing="some")


def test_drop_path_leaves_out_whole_branches_and_keeps_the_expectation():
    eva = tiny_encoder(drop_path_rate=0.5).train().eva
    packing = Packing.of([3] * 4000, torch.device("cpu"))
    torch.manual_seed(0)
    factors = torch.stack(eva.draw_drop_path(packing))
    assert factors.shape == (3, 2, 12000, 1)
    by_sample = factors.view(3, 2, 4000, 3)
    assert torch.equal(by_sample, by_sample[..., :1].expand(-1, -1, -1, 3)), "all of its tokens"
    for block, rate in enumerate((0.0, 0.25, 0.5)):
        found = by_sample[block, :, :, 0]
        assert set(found.unique().tolist()) == (
            {0.0, float(np.float32(1) / np.float32(1 - rate))} if rate else {1.0}
        )
        assert found.mean(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert (by_sample[2, 0] != by_sample[2, 1]).any(), "branches are drawn one by one"
    assert eva.eval().draw_drop_path(packing) == [None] * 3
    assert tiny_encoder().train().eva.draw_drop_path(packing) == [None] * 3


def test_a_dropped_branch_is_left_out_of_its_sample_alone():
    encoder = tiny_encoder()
    block, rope = encoder.eva.blocks[0], rotation(grid_positions((1, 1, 6)), 12)[:, None, None]
    packing = Packing.of([2, 4], torch.device("cpu"))
    x = torch.randn(6, 48, generator=torch.Generator().manual_seed(1))
    drop = torch.tensor([[0.0, 1.0], [0.0, 2.0]])[:, packing.sample, None]
    dropped, whole = block(x, rope, packing, drop), block(x, rope, packing)
    assert torch.equal(dropped[:2], x[:2])
    after_attention = x + block.attn(block.norm1(x), rope, packing, block.gamma_1)
    twice = after_attention + 2 * (whole - after_attention)
    torch.testing.assert_close(dropped[2:], twice[2:], rtol=1e-4, atol=1e-5)


def test_the_affine_final_norm_has_the_same_parameters_and_keeps_sizes():
    torch.manual_seed(0)
    sizes = {"input_channels": 1, "embed_dim": 24, "depth": 1, "num_heads": 4}
    layer = PrimusEncoder(**sizes)
    affine = PrimusEncoder(**sizes, final_norm="affine")
    affine.load_state_dict(layer.state_dict())
    image = torch.randn(1, 1, 16, 16, 16)
    expected = nn.functional.layer_norm(affine(image), [24])
    torch.testing.assert_close(layer(image), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="final_norm must be one of layer, affine, not 'none'"):
        PrimusEncoder(**sizes, final_norm="none")
