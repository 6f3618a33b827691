"""Masked image modelling: one order of axes, and no voxel that is to be predicted is ever seen."""

import pytest
import torch

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.tokens import fill_patches, patchify, unpatchify
from colipri.common.errors import ColipriError
from colipri.objectives.masked_image_modelling import MaskedImageModelling
from colipri.objectives.masking import draw_masks

SIZE, PATCH, GRID = (16, 24, 40), (4, 4, 8), (4, 6, 5)  # no two axes alike
TOKENS = 4 * 6 * 5
STEMS = {
    "linear": {},
    "light": {"features": [4, 4, 4], "depth_per_level": [0, 1, 1]},
    "v2": {"base_features": 4},
    "v3": {"ch_per_level": [4, 4, 4, 4]},
}


def coordinates():
    """A volume whose every voxel says where it is: 10000 i + 100 j + k."""
    i, j, k = torch.meshgrid(*(torch.arange(size) for size in SIZE), indexing="ij")
    return (10000 * i + 100 * j + k).float()[None, None]


def body(batch=1):
    """Body in the middle of the first axis and everywhere else; air at its ends."""
    mask = torch.zeros(batch, *GRID, dtype=torch.bool)
    mask[:, 1:3] = True
    return mask.flatten(1)


def networks(stem="linear"):
    torch.manual_seed(0)
    encoder = PrimusEncoder(1, 12, 1, 2, PATCH, stem=stem, stem_kwargs=STEMS[stem])
    return encoder, MaskedDecoder(12, 4 * 4 * 8, 12, 1, 2)


def voxels_of(tokens):
    """(B, N) bool -> (B, 1, *SIZE) bool."""
    filled = tokens[..., None].expand(-1, -1, 4 * 4 * 8).float()
    return unpatchify(filled, GRID, PATCH).bool()


# ---------------------------------------------------------------------------- one order of axes


def test_patches_are_where_their_positions_say():
    patches = patchify(coordinates(), PATCH)[0]
    assert patches.shape == (TOKENS, 128)
    for number, (i, j, k) in enumerate(grid_positions(GRID).tolist()):
        corner = coordinates()[0, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, 8 * k : 8 * k + 8]
        assert torch.equal(patches[number], corner.flatten())


def test_patches_of_several_channels_and_samples_go_back_to_the_image():
    image = torch.randn(3, 2, *SIZE)
    assert torch.equal(unpatchify(patchify(image, PATCH), GRID, PATCH), image)


def test_tokens_of_the_encoder_have_the_same_order():
    """A linear stem whose first feature is the mean of its patch shows which token is which."""
    encoder, _ = networks()
    with torch.no_grad():
        encoder.down_projection.proj.weight.zero_()[0] = 1 / 128
        encoder.down_projection.proj.bias.zero_()
        tokens, grid = encoder.tokenize(coordinates())
    assert grid == GRID
    means = patchify(coordinates(), PATCH).mean(dim=2)
    assert torch.allclose(tokens[..., 0], means, rtol=1e-4)


def test_filled_patches_are_the_hidden_ones():
    hidden = torch.rand(2, TOKENS) < 0.5
    image = torch.randn(2, 1, *SIZE)
    filled = fill_patches(image, hidden, PATCH, -9.0)
    assert torch.equal(filled == -9.0, voxels_of(hidden))
    assert torch.equal(filled[~voxels_of(hidden)], image[~voxels_of(hidden)])


def test_targets_are_the_hidden_voxels_in_order():
    encoder, _ = networks()
    objective = MaskedImageModelling()
    image = coordinates()
    masks = objective.draw_masks(encoder, image, body(), [3])
    targets = objective.targets(image, masks, PATCH)
    positions = grid_positions(GRID)[masks.masked[0]]
    for row, (i, j, k) in enumerate(positions.tolist()):
        corner = image[0, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, 8 * k : 8 * k + 8]
        assert torch.equal(targets[0, row], corner.flatten())


# ---------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("mask", ["random", "block"])
def test_no_hidden_voxel_reaches_the_prediction_and_all_visible_ones_do(stem, mask):
    encoder, decoder = networks(stem)
    objective = MaskedImageModelling(mask=mask)
    image = torch.randn(2, 1, *SIZE, requires_grad=True)
    masks = objective.draw_masks(encoder, image, body(2), [1, 2])
    predicted = objective.predict(encoder, decoder, image, masks, air=0.0)
    (predicted * torch.randn_like(predicted)).sum().backward()
    assert not image.grad[voxels_of(masks.hidden)].any()
    by_token = patchify(image.grad, PATCH).abs().sum(dim=2)
    for row in range(2):
        assert (by_token[row, masks.visible[row]] > 0).all()
    if stem == "linear":  # a convolutional stem looks at air beside visible tokens, and may
        assert not by_token[~body(2)].any()


def test_the_loss_asks_for_hidden_body_voxels_only():
    encoder, decoder = networks()
    objective = MaskedImageModelling()
    image = torch.randn(2, 1, *SIZE, requires_grad=True)
    masks = objective.draw_masks(encoder, image, body(2), [1, 2])
    predicted = objective.predict(encoder, decoder, image, masks, 0.0).detach()
    objective.error(predicted, image, masks, PATCH).sum().backward()
    asked = image.grad != 0
    assert torch.equal(asked, voxels_of(masks.hidden))
    assert not (voxels_of(masks.hidden) & ~voxels_of(body(2))).any()


def test_other_values_in_hidden_voxels_change_the_target_and_not_the_prediction():
    encoder, decoder = networks("light")
    objective = MaskedImageModelling()
    image = torch.randn(1, 1, *SIZE)
    masks = objective.draw_masks(encoder, image, body(), [5])
    other = torch.where(voxels_of(masks.hidden), torch.randn_like(image), image)
    with torch.no_grad():
        first = objective.predict(encoder, decoder, image, masks, 0.0)
        second = objective.predict(encoder, decoder, other, masks, 0.0)
    assert torch.equal(first, second)
    assert not torch.equal(
        objective.targets(image, masks, PATCH), objective.targets(other, masks, PATCH)
    )


# ---------------------------------------------------------------------------- masks


@pytest.mark.parametrize("mask", ["random", "block"])
@pytest.mark.parametrize("ratio", [0.25, 0.75, 0.99])
def test_the_share_of_the_body_is_hidden_and_air_is_in_neither(mask, ratio):
    is_body = torch.rand(3, TOKENS, generator=torch.Generator().manual_seed(0)) < 0.6
    masks = draw_masks(is_body, GRID, ratio, mask, 2, [1, 2, 3])
    for row in range(3):
        count = int(is_body[row].sum())
        real = masks.visible_mask[row] if masks.visible_mask is not None else slice(None)
        visible = set(masks.visible[row][real].tolist())
        hidden = set(masks.masked[row][masks.masked_mask[row]].tolist())
        assert len(visible) == max(1, round(count * (1 - ratio)))
        assert visible | hidden == set(torch.nonzero(is_body[row])[:, 0].tolist())
        assert not visible & hidden
        assert hidden == set(torch.nonzero(masks.hidden[row])[:, 0].tolist())


def test_blocks_hide_neighbours_together():
    def neighbours_hidden_alike(mask):
        whole = torch.ones(1, 12 * 12 * 12, dtype=torch.bool)
        hidden = draw_masks(whole, (12, 12, 12), 0.5, mask, 3, [4]).hidden.view(12, 12, 12)
        return (hidden[1:] == hidden[:-1]).float().mean().item()

    assert neighbours_hidden_alike("random") == pytest.approx(0.5, abs=0.05)
    assert neighbours_hidden_alike("block") > 0.75


def test_a_mask_is_a_function_of_its_seed_and_not_of_its_batch():
    both = draw_masks(body(2), GRID, 0.75, "block", 2, [7, 8])
    alone = draw_masks(body(1), GRID, 0.75, "block", 2, [8])
    assert torch.equal(both.hidden[1], alone.hidden[0])
    assert not torch.equal(both.hidden[0], both.hidden[1])


def test_a_scan_with_a_single_body_token_has_nothing_to_predict():
    encoder, decoder = networks()
    single = torch.zeros(2, TOKENS, dtype=torch.bool)
    single[0, 7] = True
    single[1] = body()[0]
    objective = MaskedImageModelling()
    loss = objective.losses(encoder, decoder, torch.randn(2, 1, *SIZE), single, [0, 1], 0.0)
    loss.sum().backward()
    assert loss[0].item() == 0.0
    assert loss[1].item() > 0.0
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters())


# ---------------------------------------------------------------------------- loss and decoder


def test_a_case_has_the_same_loss_alone_and_beside_a_larger_one():
    encoder, decoder = networks()
    image = torch.randn(2, 1, *SIZE)
    bodies = torch.ones(2, TOKENS, dtype=torch.bool)
    bodies[0] = body()[0]
    objective = MaskedImageModelling()
    with torch.no_grad():
        together = objective.losses(encoder, decoder, image, bodies, [1, 2], 0.0)
        alone = objective.losses(encoder, decoder, image[:1], bodies[:1], [1], 0.0)
    assert together[0].item() == pytest.approx(alone[0].item(), rel=1e-5)


def test_a_perfect_prediction_has_no_loss_under_either_target():
    encoder, _ = networks()
    image = torch.randn(1, 1, *SIZE)
    for target in ("plain", "normalised"):
        objective = MaskedImageModelling(target=target)
        masks = objective.draw_masks(encoder, image, body(), [0])
        perfect = objective.targets(image, masks, PATCH)
        assert objective.error(perfect, image, masks, PATCH).item() == 0.0
        nothing = objective.error(torch.zeros_like(perfect), image, masks, PATCH).item()
        assert nothing == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(perfect.mean(dim=2), torch.zeros(()), atol=1e-5)
    assert torch.allclose(perfect.var(dim=2, unbiased=False), torch.ones(()), atol=1e-4)


def test_the_decoder_knows_tokens_by_position_and_not_by_place_in_the_list():
    encoder, decoder = networks()
    objective = MaskedImageModelling()
    image = torch.randn(1, 1, *SIZE)
    masks = objective.draw_masks(encoder, image, body(), [0])
    positions = grid_positions(GRID)
    with torch.no_grad():
        tokens = encoder(image, masks.visible)
        args = (positions[masks.visible], positions[masks.masked])
        straight = decoder(tokens, *args)
        turned = decoder(tokens.flip(1), args[0].flip(1), args[1].flip(1))
        elsewhere = decoder(tokens, args[0], args[1] + torch.tensor([0, 1, 0]))
    assert torch.allclose(turned.flip(1), straight, atol=1e-5)
    assert (elsewhere - straight).abs().max() > 100 * (turned.flip(1) - straight).abs().max()


def test_it_learns_to_continue_what_it_sees():
    """Scans of two levels, dark and bright: hidden patches follow from any visible one."""
    torch.manual_seed(0)
    encoder = PrimusEncoder(1, 24, 1, 2, PATCH)
    decoder = MaskedDecoder(24, 4 * 4 * 8, 24, 1, 2)
    objective = MaskedImageModelling(mask_ratio=0.75)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=5e-3)
    losses = []
    image = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(4, 1, 1, 1, 1).expand(-1, 1, *SIZE)
    for number in range(40):
        seeds = [4 * number + row for row in range(4)]
        loss = objective.losses(encoder, decoder, image, body(4), seeds, 0.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


@pytest.mark.parametrize(
    "settings",
    [{"mask_ratio": 1.0}, {"mask": "tube"}, {"target": "hog"}, {"block_size": 0}],
)
def test_impossible_settings_are_named(settings):
    with pytest.raises(ColipriError, match=next(iter(settings))):
        MaskedImageModelling(**settings)
