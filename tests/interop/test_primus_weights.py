"""Weights of dynamic-network-architectures' Primus families are ours, and ours are theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures.tiny_encoder import randomise, striped_volume
from dynamic_network_architectures.architectures.primus import Primus, PrimusV2, PrimusV3
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.checkpoints.weight_conversion import encoder_from_dna, encoder_to_dna
from colipri.common.errors import ColipriError

SHAPE = (32, 48, 40)  # 4 x 6 x 5 tokens: no two axes alike
SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 4}
FAMILIES = {"linear": Primus, "v2": PrimusV2, "v3": PrimusV3}


def _theirs(family: str = "linear", size: dict[str, int] = SMALL, **changes: Any) -> nn.Module:
    """Their network with random weights, without its decoder."""
    settings: dict[str, Any] = {
        "input_channels": 1,
        "embed_dim": size["embed_dim"],
        "eva_depth": size["depth"],
        "eva_numheads": size["num_heads"],
        "patch_embed_size": (8, 8, 8),
        "num_classes": 2,
        "input_shape": SHAPE,
        "use_abs_pos_embed": False,
        "init_values": 0.1,
        "scale_attn_inner": True,
        **changes,
    }
    network = FAMILIES[family](**settings)
    randomise(network)
    network.up_projection = nn.Identity()
    return network.eval()


def _ours(stem: str = "linear", size: dict[str, int] = SMALL, **changes: Any) -> PrimusEncoder:
    return PrimusEncoder(**{"input_channels": 1, "stem": stem, **size, **changes}).eval()


def _tokens(network: nn.Module, image: Tensor) -> Tensor:
    """Their feature map (B, D, G0, G1, G2) as a token list, axis 0 slowest."""
    with torch.no_grad():
        features: Tensor = network(image)
    return features.flatten(2).transpose(1, 2)


def _assert_same(ours: PrimusEncoder, theirs: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        output = ours(image)
    expected = _tokens(theirs, image)
    assert expected.std() > 0.5
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"input_channels": 3}, {"input_channels": 3}),
        ({"patch_embed_size": (4, 8, 8)}, {"patch_embed_size": (4, 8, 8)}),
        ({"num_register_tokens": 3}, {"num_register_tokens": 3}),
        ({"init_values": None}, {"init_values": None}),
        ({"scale_attn_inner": False}, {"scale_attn_inner": False}),
        ({"use_abs_pos_embed": True}, {"position_grid": (4, 6, 5)}),
        (
            {"use_abs_pos_embed": True, "num_register_tokens": 2},
            {"position_grid": (4, 6, 5), "num_register_tokens": 2},
        ),
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_primus_in_all_its_options(theirs: dict[str, Any], ours: dict[str, Any]):
    network, encoder = _theirs(**theirs), _ours(**ours)
    load_state_dict_reported(encoder, encoder_from_dna(network.state_dict()))
    image = striped_volume(SHAPE, batch=2).expand(-1, theirs.get("input_channels", 1), -1, -1, -1)
    _assert_same(encoder, network, image.clone())


@pytest.mark.parametrize("family", ["v2", "v3"])
def test_primus_with_a_convolutional_stem(family: str, tmp_path):
    network, encoder = _theirs(family), _ours(family)
    load_state_dict_reported(encoder, encoder_from_dna(network.state_dict()))
    _assert_same(encoder, network, striped_volume(SHAPE, batch=2))
    # safetensors stores tensors that are listed twice under one of their names only
    save_model(network, str(tmp_path / "network.safetensors"))
    stored = load_file(tmp_path / "network.safetensors")
    assert len(stored) < len(network.state_dict())
    again = _ours(family)
    load_state_dict_reported(again, encoder_from_dna(stored))
    _assert_same(again, network, striped_volume(SHAPE))


@pytest.mark.parametrize("size", ["S", "M"])
def test_the_sizes_of_the_paper(size: str):
    network, encoder = _theirs(size=PRESETS[size]), _ours(size=PRESETS[size])
    load_state_dict_reported(encoder, encoder_from_dna(network.state_dict()))
    _assert_same(encoder, network, striped_volume(SHAPE))


@pytest.mark.parametrize("family", ["linear", "v2", "v3"])
@pytest.mark.parametrize("absolute", [False, True])
def test_our_weights_load_strictly_into_theirs(family: str, absolute: bool):
    encoder, network = _ours(family), _theirs(family, use_abs_pos_embed=absolute)
    randomise(encoder, seed=1)
    state = encoder_to_dna(encoder.state_dict(), position_rows=120 if absolute else None)
    network.load_state_dict(state, strict=True)
    _assert_same(encoder, network, striped_volume(SHAPE))
    back = encoder_from_dna(network.state_dict())
    assert back.keys() == encoder.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in encoder.state_dict().items())


def test_gradients_are_the_same_too():
    network, encoder = _theirs(), _ours()
    load_state_dict_reported(encoder, encoder_from_dna(network.state_dict()))
    image = striped_volume(SHAPE)
    weights = torch.randn(1, 48, 4, 6, 5, generator=torch.Generator().manual_seed(3))
    (network(image) * weights).sum().backward()
    (encoder(image) * weights.flatten(2).transpose(1, 2)).sum().backward()
    theirs = dict(network.named_parameters())
    for name, parameter in encoder.named_parameters():
        largest = float(theirs[name].grad.abs().max())
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=0, atol=1e-4 * max(1.0, largest), msg=name
        )


def test_a_file_that_was_edited_in_one_place_is_refused():
    state = dict(_theirs("v2").state_dict())
    name = "down_projection.stem.blocks.0.conv1.all_modules.0.weight"
    state[name] = state[name] + 1
    with pytest.raises(ColipriError, match=f"{name} differs from its copy"):
        encoder_from_dna(state)
