"""The network inside nnU-Net: shapes, names, and the encoder's function unchanged."""

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from transfer.nnunet_data import STEMS, features, make_encoder

from colipri.transfer.encoder_weights import repeat_channels, save_encoder
from colipri.transfer.segmentation_network import (
    NETWORK_CLASS,
    PrimusSegmentation,
    deep_supervision_strides,
)

PATCH = (16, 24, 32)


def build(encoder, channels=1, heads=3, decoder="dense", deep_supervision=True):
    """As nnU-Net builds it from a plan."""
    arch = {
        "encoder": encoder.arch_kwargs,
        "decoder": {"kind": decoder},
        "strides": deep_supervision_strides(encoder.token_patch),
    }
    return get_network_from_plans(NETWORK_CLASS, arch, [], channels, heads, True, deep_supervision)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("decoder", ["dense", "patch"])
def test_nnunets_loader_takes_the_encoder_and_its_features_are_the_same(stem, decoder, tmp_path):
    encoder = make_encoder(stem)
    file = tmp_path / "encoder.pth"
    save_encoder(file, encoder.weights, {})
    network = build(encoder, decoder=decoder).eval()
    load_pretrained_weights(network, str(file))
    image = torch.randn(2, 1, *PATCH)
    with torch.no_grad():
        inside = network.token_maps(image)[-1].flatten(2).transpose(1, 2)
        outputs = network(image)
    assert torch.equal(inside, features(encoder, encoder.weights, image))
    assert [tuple(o.shape) for o in outputs] == [
        (2, 3, 16, 24, 32),
        (2, 3, 8, 12, 16),
        (2, 3, 4, 6, 8),
    ]


def test_everything_new_lies_where_nnunets_loader_does_not_look():
    encoder = make_encoder()
    names = build(encoder).state_dict().keys()
    assert {n for n in names if ".seg_layers." not in n} == set(encoder.weights)
    assert all(n.startswith("decoder.seg_layers.") for n in names if ".seg_layers." in n)


def test_nnunets_loader_refuses_a_file_that_lacks_a_tensor(tmp_path):
    encoder = make_encoder()
    incomplete = {k: v for k, v in encoder.weights.items() if k != "eva.norm.bias"}
    save_encoder(tmp_path / "encoder.pth", incomplete, {})
    with pytest.raises(AssertionError, match=r"eva\.norm\.bias"):
        load_pretrained_weights(build(encoder), str(tmp_path / "encoder.pth"))


@pytest.mark.parametrize(
    ("labels", "order", "heads"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, 3),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None, 3),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1, 2], 2),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], 2),
    ],
)
def test_one_file_for_labels_regions_and_ignore_labels(labels, order, heads, tmp_path):
    encoder = make_encoder()
    save_encoder(tmp_path / "encoder.pth", encoder.weights, {})
    manager = LabelManager(labels, regions_class_order=order)
    assert manager.num_segmentation_heads == heads
    network = build(encoder, heads=manager.num_segmentation_heads)
    load_pretrained_weights(network, str(tmp_path / "encoder.pth"))
    assert network(torch.zeros(1, 1, *PATCH))[0].shape == (1, heads, *PATCH)


@pytest.mark.parametrize("stem", STEMS)
def test_repeated_channels_give_the_features_of_one(stem, tmp_path):
    encoder = make_encoder(stem)
    weights = repeat_channels(encoder, 3)
    save_encoder(tmp_path / "encoder.pth", weights, {})
    network = build(encoder, channels=3).eval()
    load_pretrained_weights(network, str(tmp_path / "encoder.pth"))
    image = torch.randn(1, 1, *PATCH)
    with torch.no_grad():
        inside = network.token_maps(image.expand(-1, 3, -1, -1, -1))[-1]
    expected = features(encoder, encoder.weights, image)
    assert torch.allclose(inside.flatten(2).transpose(1, 2), expected, atol=1e-4)


def test_nnunet_switches_deep_supervision_on_the_decoder():
    network = build(make_encoder()).eval()
    network.decoder.deep_supervision = False
    assert network(torch.zeros(1, 1, *PATCH)).shape == (1, 3, *PATCH)
    assert build(make_encoder(), deep_supervision=False).state_dict().keys() == (
        network.state_dict().keys()
    )


def test_recomputing_activations_changes_no_gradient():
    gradients = {}
    for level in ("none", "mlp", "full"):
        encoder = make_encoder(arch_kwargs={"activation_checkpointing": level})
        torch.manual_seed(1)
        network = build(encoder)
        network.load_state_dict({**network.state_dict(), **encoder.weights})
        torch.manual_seed(2)
        sum(output.square().mean() for output in network(torch.randn(1, 1, *PATCH))).backward()
        gradients[level] = network.eva.blocks[0].attn.q_proj.weight.grad
    assert gradients["none"].abs().max() > 0
    assert torch.allclose(gradients["none"], gradients["mlp"], rtol=1e-4, atol=1e-7)
    assert torch.allclose(gradients["none"], gradients["full"], rtol=1e-4, atol=1e-7)


def test_every_parameter_of_the_decoder_learns():
    network = build(make_encoder())
    sum(output.square().mean() for output in network(torch.randn(1, 1, *PATCH))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_register_tokens_travel():
    encoder = make_encoder(arch_kwargs={"num_register_tokens": 2})
    network = build(encoder).eval()
    network.load_state_dict({**network.state_dict(), **encoder.weights})
    image = torch.randn(1, 1, *PATCH)
    inside = network.token_maps(image)[-1].flatten(2).transpose(1, 2)
    assert torch.allclose(inside, features(encoder, encoder.weights, image), atol=1e-6)


def test_strides_follow_the_token_patch():
    assert deep_supervision_strides((8, 8, 4)) == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    with pytest.raises(ValueError, match="no level to supervise"):
        deep_supervision_strides((2, 2, 2))
    with pytest.raises(ValueError, match="strides"):
        PrimusSegmentation(
            1, 2, encoder=make_encoder().arch_kwargs, decoder={}, strides=[[1, 1, 1], [2, 2, 2]]
        )
    with pytest.raises(ValueError, match="unknown decoder 'unet'"):
        build(make_encoder(), decoder="unet")
