"""Encoders of nnssl, of nnU-Net's Primus, of the released weights, and our export, as sources."""

import json

import pytest
import torch
from architectures.tiny_encoder import randomise, striped_volume
from dynamic_network_architectures.architectures.primus import Primus, PrimusV2, PrimusV3
from interop.nnssl_model import NnsslAutoencoder, save_nnssl
from safetensors.torch import save_file
from tiny_model import write_checkpoint
from torch import nn
from transfer.nnunet_data import features, fingerprint_of, write_nnunet_dataset

from colipri.checkpoints.encoder_fitting import resize_positions
from colipri.checkpoints.pretrained_encoder import load_pretrained_encoder
from colipri.common.errors import ColipriError
from colipri.transfer.nnunet_dataset import find_segmentation_dataset
from colipri.transfer.segmentation_planner import PlanOptions
from colipri.transfer.transfer import transfer_encoder
from colipri.transfer.verify_transfer import load_like_nnunet

CUBE = (24, 24, 24)
SHAPE = (16, 24, 32)


def stock_primus(family=Primus, **options):
    settings = {
        "input_channels": 1,
        "embed_dim": 396,
        "patch_embed_size": (8, 8, 8),
        "num_classes": 2,
        "eva_depth": 2,
        "eva_numheads": 6,
        "input_shape": SHAPE,
        "init_values": 0.1,
        "scale_attn_inner": True,
        **options,
    }
    network = randomise(family(**settings))
    network.up_projection = nn.Identity()
    return network.eval()


def stock_features(network, image):
    with torch.no_grad():
        return network(image).flatten(2).transpose(1, 2)


def transferred_network(tmp_path, monkeypatch, encoder, **options):
    """The network that nnU-Net builds from the plan, with the file that the transfer wrote."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = write_nnunet_dataset(tmp_path / "raw", channel_names={"0": "MRI"})
    target = tmp_path / "preprocessed" / folder.name
    target.mkdir()
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
    dataset = find_segmentation_dataset("411")
    done = transfer_encoder(dataset, encoder, PlanOptions(**options), 1, preprocess=False)
    architecture = done.plans["configurations"]["3d_fullres"]["architecture"]
    network, _ = load_like_nnunet(done.encoder_file, architecture, 1, dataset.num_heads)
    return network.eval(), done


@pytest.mark.parametrize("shape", [CUBE, (24, 24, 40)])
def test_an_nnssl_autoencoder_gives_its_tokens_inside_nnunets_network(tmp_path, monkeypatch, shape):
    """nnssl flattens tokens with axis 1 first and counts positions with axis 0 first."""
    theirs = randomise(NnsslAutoencoder(shape, absolute=False)).eval()
    encoder = load_pretrained_encoder(save_nnssl(tmp_path / "nnssl.pth", theirs, shape))
    network, done = transferred_network(tmp_path, monkeypatch, encoder)
    assert any("token order corrected" in warning for warning in done.warnings)
    assert done.plans["image_reader_writer"] == "SimpleITKIO", "nnssl reads images as stored"
    assert done.plans["configurations"]["3d_fullres"]["spacing"] == [1.0, 1.0, 1.0]
    image = striped_volume(shape)
    with torch.no_grad():
        inside = network.token_maps(image)[-1].flatten(2).transpose(1, 2)
        expected = theirs(image)
    assert expected.std() > 0.5
    torch.testing.assert_close(inside, expected, rtol=0, atol=1e-3)
    uncorrected = stock_primus(use_abs_pos_embed=False, input_shape=shape)
    state = {n: t for n, t in theirs.state_dict().items() if not n.startswith("decoder.")}
    uncorrected.load_state_dict({**state, "mask_token": state["mask_token"]}, strict=True)
    assert (stock_features(uncorrected, image) - expected).abs().max() > 0.1


def test_its_learned_positions_are_turned_with_its_tokens(tmp_path):
    theirs = randomise(NnsslAutoencoder((24, 24, 40), absolute=True)).eval()
    encoder = load_pretrained_encoder(save_nnssl(tmp_path / "nnssl.pth", theirs, (24, 24, 40)))
    assert encoder.arch_kwargs["position_grid"] == [3, 3, 5]
    image = striped_volume((24, 24, 40))
    with torch.no_grad():
        expected = theirs(image)
    torch.testing.assert_close(
        features(encoder, encoder.weights, image), expected, rtol=0, atol=1e-3
    )
    resized = resize_positions(encoder.weights, (3, 3, 5), (2, 2, 2))
    assert resized["eva.pos_embed"].shape == (1, 8, 396)


def test_the_axes_of_nnssls_plan_are_turned_back(tmp_path):
    """A plan that puts the last axis first: spacing, patch and weights in the file's axes again."""
    theirs = randomise(NnsslAutoencoder((24, 24, 40), absolute=False)).eval()
    turned = {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    file = save_nnssl(tmp_path / "nnssl.pth", theirs, (24, 24, 40), **turned)
    encoder = load_pretrained_encoder(file)
    assert encoder.patch_size == (24, 40, 24)
    stored = striped_volume((24, 40, 24))
    with torch.no_grad():
        grid = theirs(stored.permute(0, 1, 4, 2, 3)).unflatten(1, (3, 3, 5))
    expected = grid.permute(0, 2, 3, 1, 4).flatten(1, 3)
    torch.testing.assert_close(
        features(encoder, encoder.weights, stored), expected, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture_plans": {"arch_class_name": "ResEncL"}}, "class ResEncL; only Primus"),
        ({"pretrain_plan": {}}, "nnssl_adaptation_plan is incomplete"),
        ({"key_to_encoder": "encoder"}, "no weights under encoder"),
    ],
)
def test_nnssl_checkpoints_that_cannot_be_transferred(tmp_path, change, message):
    file = save_nnssl(tmp_path / "nnssl.pth", NnsslAutoencoder(CUBE, absolute=False), CUBE)
    content = torch.load(file, weights_only=True)
    content["nnssl_adaptation_plan"].update(change)
    torch.save(content, file)
    with pytest.raises(ColipriError, match=message):
        load_pretrained_encoder(file)


def test_an_nnssl_token_order_that_cannot_be_mended_is_refused(tmp_path):
    file = save_nnssl(tmp_path / "nnssl.pth", NnsslAutoencoder(SHAPE, absolute=False), SHAPE)
    with pytest.raises(ColipriError, match="trained it on 2x3x4 tokens"):
        load_pretrained_encoder(file)


def test_released_weights_are_turned_to_our_axes(tmp_path):
    network = stock_primus(use_abs_pos_embed=False, input_shape=(32, 24, 16))
    weights = {
        f"image_encoder.backbone.{name}": tensor.contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    save_file(
        {**weights, "softmax_temperature": torch.tensor(0.07)}, tmp_path / "model.safetensors"
    )
    encoder = load_pretrained_encoder(tmp_path / "model.safetensors")
    assert (encoder.orientation, encoder.spacing) == ("SAR", (2.0, 2.0, 2.0))
    assert encoder.air_value(0) == -1.0
    image = striped_volume(SHAPE)  # superior, anterior, right; the package feeds the reverse
    with torch.no_grad():
        grid = network(image.permute(0, 1, 4, 3, 2))
    expected = grid.permute(0, 4, 3, 2, 1).flatten(1, 3)
    found = features(encoder, encoder.weights, image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", [Primus, PrimusV2, PrimusV3])
def test_a_primus_that_nnunet_trained(tmp_path, family):
    """Its checkpoint says all that is needed; the stem is recognised by its weights."""
    network = stock_primus(family, use_abs_pos_embed=family is Primus)
    window = {"mean": 40.0, "std": 300.0, "percentile_00_5": -900.0, "percentile_99_5": 900.0}
    configuration = {
        "spacing": [3.0, 1.0, 2.0],
        "patch_size": list(SHAPE),
        "normalization_schemes": ["CTNormalization"],
    }
    plans = {
        "image_reader_writer": "NibabelIOWithReorient",
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {"0": window},
    }
    arguments = {
        "plans": plans,
        "configuration": "3d_fullres",
        "dataset_json": {"channel_names": {"0": "CT"}},
    }
    content = {"network_weights": network.state_dict(), "init_args": arguments}
    torch.save(content, tmp_path / "checkpoint_final.pth")
    encoder = load_pretrained_encoder(tmp_path / "checkpoint_final.pth")
    assert (encoder.orientation, encoder.spacing) == ("SAR", (3.0, 1.0, 2.0))
    assert (encoder.channel_names, encoder.intensities) == (("CT",), (window,))
    image = striped_volume(SHAPE)
    torch.testing.assert_close(
        features(encoder, encoder.weights, image),
        stock_features(network, image),
        rtol=0,
        atol=1e-3,
    )


def test_weights_without_their_plan_are_refused(tmp_path):
    torch.save(stock_primus().state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ColipriError, match=r"bare\.pth .*does not say at which spacing"):
        load_pretrained_encoder(tmp_path / "bare.pth")


def test_unknown_safetensors_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ColipriError, match="holds no image encoder that is known here"):
        load_pretrained_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ColipriError, match="cannot be read as weights"):
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
    (tmp_path / "shared" / "config.json").write_text("{")
    with pytest.raises(ColipriError, match=r"config\.json is not valid JSON"):
        load_pretrained_encoder(tmp_path / "shared")


def test_checkpoints_of_ours_that_cannot_be_used(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pth", orientation="LPS")
    with pytest.raises(ColipriError, match="axes LPS"):
        load_pretrained_encoder(checkpoint)
    with pytest.raises(ColipriError, match="there is no file of weights"):
        load_pretrained_encoder(tmp_path / "missing.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK broken")
    with pytest.raises(ColipriError, match=r"broken\.pth cannot be read as weights"):
        load_pretrained_encoder(tmp_path / "broken.pth")
    content = torch.load(write_checkpoint(checkpoint), weights_only=True)
    torch.save({**content, "colipri_checkpoint_version": 99}, checkpoint)
    with pytest.raises(ColipriError, match="checkpoint version 99, this colipri reads 1"):
        load_pretrained_encoder(checkpoint)
    del content["plans"]
    torch.save(content, checkpoint)
    with pytest.raises(ColipriError, match="incomplete checkpoint: no plans"):
        load_pretrained_encoder(checkpoint)
