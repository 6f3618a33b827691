"""Encoders of nnssl and of the released colipri weights, and our own export, as sources."""

import json

import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from safetensors.torch import save_file
from tiny_model import write_checkpoint
from transfer.nnunet_data import features

from colipri.common.errors import ColipriError
from colipri.transfer.encoder_weights import resize_positions
from colipri.transfer.pretrained_encoder import load_pretrained_encoder

NNSSL_PLAN = {
    "architecture_plans": {"arch_class_name": "PrimusS", "arch_kwargs": None},
    "pretrain_plan": {
        "dataset_name": "Dataset001_Brains",
        "configurations": {
            "onemmiso": {
                "spacing": [1.0, 1.0, 1.0],
                "patch_size": [16, 24, 32],
                "normalization_schemes": ["ZScoreNormalization"],
            }
        },
    },
    "pretrain_num_input_channels": 1,
    "key_to_encoder": "eva",
    "key_to_stem": "down_projection",
    "keys_to_in_proj": ["down_projection.proj"],
    "key_to_lpe": "eva.pos_embed",
}


def stock_primus(depth=2, **options):
    torch.manual_seed(0)
    network = Primus(
        1,
        396,
        (8, 8, 8),
        2,
        eva_depth=depth,
        eva_numheads=6,
        input_shape=(16, 24, 32),
        init_values=0.1,
        scale_attn_inner=True,
        **options,
    )
    return network.eval()


def stock_features(network, image):
    tokens = network.down_projection(image).flatten(2).transpose(1, 2)
    with torch.no_grad():
        return network.eva(tokens)[0]


def test_an_nnssl_checkpoint_with_its_learned_positions(tmp_path):
    network = stock_primus()
    file = tmp_path / "nnssl.pth"
    torch.save({"network_weights": network.state_dict(), "nnssl_adaptation_plan": NNSSL_PLAN}, file)
    encoder = load_pretrained_encoder(file)
    assert encoder.spacing == (1.0, 1.0, 1.0)
    assert encoder.orientation is None
    assert encoder.arch_kwargs["position_grid"] == [2, 3, 4]
    image = torch.randn(1, 1, 16, 24, 32)
    with torch.no_grad():
        expected = stock_features(network, image)
    assert torch.allclose(features(encoder, encoder.weights, image), expected, atol=1e-4)
    weights = resize_positions(encoder.weights, (2, 3, 4), (2, 2, 2))
    assert weights["eva.pos_embed"].shape == (1, 8, 396)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture_plans": {"arch_class_name": "ResEncL"}}, "class ResEncL; only Primus"),
        ({"pretrain_plan": {}}, "lacks what a transfer needs"),
    ],
)
def test_nnssl_checkpoints_that_cannot_be_transferred(tmp_path, change, message):
    file = tmp_path / "nnssl.pth"
    plan = {**NNSSL_PLAN, **change}
    torch.save({"network_weights": {}, "nnssl_adaptation_plan": plan}, file)
    with pytest.raises(ColipriError, match=message):
        load_pretrained_encoder(file)


def test_released_weights_have_their_geometry(tmp_path):
    network = stock_primus(use_abs_pos_embed=False)
    weights = {
        f"image_encoder.backbone.{name}": tensor.contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    save_file(
        {**weights, "softmax_temperature": torch.tensor(0.07)}, tmp_path / "model.safetensors"
    )
    encoder = load_pretrained_encoder(tmp_path / "model.safetensors")
    assert (encoder.orientation, encoder.spacing) == ("RAS", (2.0, 2.0, 2.0))
    assert encoder.air_value(0) == -1.0
    image = torch.randn(1, 1, 16, 24, 32)
    expected = stock_features(network, image)
    assert torch.allclose(features(encoder, encoder.weights, image), expected, atol=1e-4)


def test_unknown_safetensors_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ColipriError, match="neither an export of colipri"):
        load_pretrained_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ColipriError, match="cannot be read as safetensors"):
        load_pretrained_encoder(tmp_path)


def test_what_colipri_export_wrote_is_the_same_encoder(tmp_path):
    from colipri.run.export import main

    checkpoint = write_checkpoint(tmp_path / "best.pth")
    assert main(["-m", str(checkpoint), "-o", str(tmp_path / "shared")]) == 0
    ours, exported = (
        load_pretrained_encoder(checkpoint),
        load_pretrained_encoder(tmp_path / "shared"),
    )
    assert exported.arch_kwargs == ours.arch_kwargs
    assert exported.spacing == ours.spacing and exported.intensities == ours.intensities
    for name, tensor in ours.weights.items():
        assert torch.equal(exported.weights[name], tensor)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "HU clipped to [-1000, 1000]" in card and "superior, anterior, right" in card
    config = json.loads((tmp_path / "shared" / "config.json").read_text())
    assert config["nnssl_adaptation_plan"]["key_to_encoder"] == "image_encoder.eva"


def test_a_checkpoint_of_other_axes_is_refused(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pth", orientation="LPS")
    with pytest.raises(ColipriError, match="axes LPS"):
        load_pretrained_encoder(checkpoint)
    with pytest.raises(ColipriError, match="there is no checkpoint"):
        load_pretrained_encoder(tmp_path / "missing.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK broken")
    with pytest.raises(ColipriError, match="damaged, or not one"):
        load_pretrained_encoder(tmp_path / "broken.pth")
