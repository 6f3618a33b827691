"""Local attention: exact where windows hold everything, and nothing seen beyond a window."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures.tiny_encoder import striped_volume, tiny_encoder
from experiment_planning.configurations import make_configuration
from experiment_planning.cuda_rules import fake_cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from colipri.architectures.local_attention import LocalAttention, window_order
from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.rope import grid_positions
from colipri.architectures.tokens import select_tokens
from colipri.checkpoints.adaptation_plan import primus_preset
from colipri.checkpoints.encoder_fitting import fit_encoder
from colipri.checkpoints.weight_file import WeightFile
from colipri.common.settings import SettingsError
from colipri.cost.flops import image_flops
from colipri.objectives.masked_image_modelling import MaskedImageModelling
from colipri.plans.architecture import EncoderSettings
from colipri.transfer.segmentation_network import PrimusSegmentation

GRID = (2, 3, 5)


def pair(window, global_blocks=0, **kind):
    """The same weights with attention everywhere, and within windows."""
    attention = {"window": window, "global_blocks": global_blocks}
    everywhere = tiny_encoder(**kind).double()
    local = tiny_encoder(attention=attention, **kind).double()
    local.load_state_dict(everywhere.state_dict())
    return everywhere, local


def ragged(batch=2):
    body = torch.rand(batch, 30, generator=torch.Generator().manual_seed(1)) < 0.6
    body[-1, :20] = False
    return select_tokens(body)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"num_register_tokens": 2, "attention_for_registers": True},
        {"position_grid": GRID},
        {"activation_checkpointing": "full"},
        {"stem": "light"},
    ],
)
@pytest.mark.parametrize("is_ragged", [False, True])
def test_a_window_as_large_as_the_grid_is_attention_everywhere(kind, is_ragged):
    """Registers are a window of their own, so with them all blocks must be global for that."""
    kind = dict(kind)
    blocks = 3 if kind.pop("attention_for_registers", False) else 0
    everywhere, local = pair(GRID, blocks, **kind)
    image = striped_volume(batch=2).double()
    inputs = (image, *ragged()) if is_ragged else (image,)
    weights = torch.randn(48, dtype=torch.float64)
    gradients = []
    for encoder in (everywhere, local):
        encoder.train()
        out = encoder(*inputs)
        (out @ weights).square().sum().backward()
        gradients.append((out.detach(), {n: p.grad for n, p in encoder.named_parameters()}))
    (expected, of_expected), (found, of_found) = gradients
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for name, gradient in of_expected.items():
        torch.testing.assert_close(of_found[name], gradient, rtol=1e-9, atol=1e-10, msg=name)


@torch.no_grad()
def test_a_window_is_encoded_as_if_there_were_nothing_else():
    everywhere, local = pair((2, 2, 3))
    tokens, _ = local.tokenize(striped_volume().double())
    positions = grid_positions(GRID)
    together = local.encode(tokens, positions)
    cells = positions // torch.tensor((2, 2, 3))
    windows = cells.unique(dim=0)
    assert len(windows) == 4  # of 12, 8, 6 and 4 tokens
    for window in windows:
        inside = (cells == window).all(dim=1)
        alone = everywhere.encode(tokens[:, inside], positions[inside])
        torch.testing.assert_close(together[:, inside], alone, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_global_blocks_see_everything_and_the_others_their_window(monkeypatch):
    _, local = pair((2, 2, 3), global_blocks=1)
    original, seen = F.scaled_dot_product_attention, []

    def counted(query, key, value):
        seen.append(key.shape[2])
        return original(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    local(striped_volume().double())
    assert seen == [12, 8, 6, 4] * 2 + [30]


def test_a_sample_of_a_ragged_batch_is_the_same_alone():
    _, local = pair((1, 2, 2), 1, num_register_tokens=2)
    image = striped_volume(batch=2).double()
    ids_keep, mask = ragged()
    together = local(image, ids_keep, mask)
    for row in range(2):
        kept = ids_keep[row][mask[row]]
        alone = local(image[row : row + 1], kept[None])[0]
        torch.testing.assert_close(together[row][mask[row]], alone, rtol=1e-12, atol=1e-12)


def test_masked_image_modelling_is_the_same_with_one_window():
    everywhere, local = pair(GRID)
    decoder = MaskedDecoder(48, 512, 24, 1, 2).double()
    image, body = striped_volume(batch=2).double(), torch.ones(2, 30, dtype=torch.bool)
    objective = MaskedImageModelling()
    predicted = []
    for encoder in (everywhere, local):
        masks = objective.draw_masks(encoder, image, body, [1, 2])
        predicted.append(objective.predict(encoder, decoder, image, masks, -1.0))
    torch.testing.assert_close(predicted[1], predicted[0], rtol=1e-12, atol=1e-12)


def test_order_of_windows():
    positions = np.array([[0, 0, 3], [0, 0, 0], [-1, -1, -1], [1, 1, 1], [0, 0, 2]])
    order, lengths = window_order(positions, (3, 2), (2, 2, 2))
    assert order.tolist() == [2, 1, 0, 3, 4]
    assert lengths == [1, 1, 1, 1, 1]
    order, lengths = window_order(positions, (5,), (2, 2, 2))
    assert order.tolist() == [2, 1, 3, 0, 4]
    assert lengths == [1, 2, 2]


@pytest.mark.parametrize(
    ("depth", "count", "numbers"), [(16, 4, {3, 7, 11, 15}), (3, 1, {2}), (12, 0, set())]
)
def test_global_blocks_are_spread_evenly_and_the_last_is_one(depth, count, numbers):
    assert LocalAttention.of(depth, (4, 4, 4), count).global_blocks == numbers


def test_nothing_is_read_back_from_the_device():
    from architectures.test_host_waits import HostReads

    attention = {"window": [2, 2, 2], "global_blocks": 1}
    encoder = tiny_encoder(attention=attention, drop_path_rate=0.2, num_register_tokens=2).train()
    with fake_cuda(encoder):
        image = torch.empty(2, 1, 16, 24, 40)
        with HostReads() as reads:
            assert encoder(image).shape == (2, 30, 48)
    assert reads.found == []


def test_planned_arithmetic_is_what_torch_counts():
    settings = EncoderSettings.from_dict(
        {
            "input_channels": 1,
            "embed_dim": 48,
            "depth": 3,
            "num_heads": 4,
            "attention": {"window": [2, 3, 1], "global_blocks": 1},
        }
    )
    encoder = tiny_encoder(attention=settings.to_dict()["attention"])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        encoder(striped_volume())
    planned = image_flops(settings, (16, 24, 40), 30)
    assert counter.get_total_flops() == pytest.approx(planned, rel=0.01)
    everywhere = EncoderSettings.from_dict({**settings.to_dict(), "attention": None})
    assert planned < image_flops(everywhere, (16, 24, 40), 30)


def test_nnunet_segments_with_the_same_windows():
    encoder = {"embed_dim": 48, "depth": 4, "num_heads": 4}
    decoder = {"kind": "patch", "num_depths": 2}
    strides = [[1, 1, 1], *([[2, 2, 2]] * 3)]
    torch.manual_seed(0)
    everywhere = PrimusSegmentation(1, 2, encoder=encoder, decoder=decoder, strides=strides).eval()
    image = striped_volume(batch=2)
    for window, is_same in (((2, 3, 5), True), ((1, 3, 2), False)):
        attention = {"window": window, "global_blocks": 1}
        local = PrimusSegmentation(
            1, 2, encoder={**encoder, "attention": attention}, decoder=decoder, strides=strides
        ).eval()
        local.load_state_dict(everywhere.state_dict())
        with torch.no_grad():
            found, expected = local.token_maps(image), everywhere.token_maps(image)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5) is is_same


def test_stock_networks_of_nnunet_are_refused_and_warm_starts_say_what_changes(tmp_path):
    sizes = {"input_channels": 1, "embed_dim": 396, "depth": 12, "num_heads": 6}
    attention = {"window": [4, 4, 4]}
    assert primus_preset(EncoderSettings.from_dict(sizes)) == "S"
    assert primus_preset(EncoderSettings.from_dict({**sizes, "attention": attention})) is None
    everywhere, local = pair((2, 2, 3))
    weights = {f"image_encoder.{n}": t for n, t in everywhere.state_dict().items()}
    fitted = fit_encoder(local, WeightFile("Primus", weights, num_heads=4), tmp_path)
    assert any("attention over all tokens" in note for note in fitted.notes)
    own = WeightFile(
        "colipri model", weights, 4, {"attention": {"window": (2, 2, 3), "global_blocks": 0}}
    )
    assert fit_encoder(local, own, tmp_path).notes == []


def test_wrong_settings_are_one_line():
    sizes = {"input_channels": 1, "embed_dim": 48, "depth": 3, "num_heads": 4}
    for attention, message in (
        ({"window": [2, 2]}, "attention.window must"),
        ({"window": [2, 2, 0]}, "attention.window"),
        ({"window": [2, 2, 2], "global_blocks": 4}, "attention.global_blocks is 4: there are 3"),
        ({"global_blocks": 1}, "attention"),
    ):
        with pytest.raises(SettingsError, match=message):
            EncoderSettings.from_dict({**sizes, "attention": attention})
    with pytest.raises(ValueError, match="three sizes"):
        LocalAttention.of(3, (2, 0, 2))
    with pytest.raises(ValueError, match="of 3 blocks 4 cannot be global"):
        LocalAttention.of(3, (2, 2, 2), 4)
    with pytest.raises(ValueError, match="cannot be merged where attention is local"):
        pair((2, 2, 2))[1].merge_tokens(0.5)


def test_a_plan_with_windows_builds_and_copies():
    configuration = make_configuration(patch=(16, 24, 40), depth=2, text=(96, 2, 2))
    encoder = copy.deepcopy(configuration.encoder.to_dict())
    encoder["attention"] = {"window": [2, 2, 2], "global_blocks": 1}
    assert EncoderSettings.from_dict(encoder).to_dict()["attention"] == encoder["attention"]
