"""Channels, padding and positions of the transferred weights."""

import pytest
import torch
from transfer.nnunet_data import features, make_encoder

from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.encoder_fitting import rescale_input, resize_positions
from colipri.common.errors import ColipriError
from colipri.transfer.encoder_weights import repeat_channels, save_encoder


@pytest.mark.parametrize("stem", ["linear", "light"])
def test_a_shifted_image_gives_the_same_features_with_shifted_weights(stem):
    encoder = make_encoder(stem)
    image = torch.randn(1, 1, 16, 24, 32)
    moved = rescale_input(encoder.weights, stem, [1.0], [-1.5])
    expected = features(encoder, encoder.weights, image)
    assert torch.allclose(features(encoder, moved, image + 1.5), expected, atol=1e-4)
    if stem == "linear":  # the instance norm of the other one removes constants by itself
        shifted = features(encoder, encoder.weights, image + 1.5)
        assert not torch.allclose(shifted, expected, atol=1e-2)


def test_shifts_are_per_channel():
    encoder = make_encoder("linear")
    weights = repeat_channels(encoder, 2)
    image = torch.randn(1, 2, 16, 16, 16)
    moved = rescale_input(weights, "linear", [1.0, 1.0], [-1.0, 2.0])
    offset = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1, 1)
    expected = features(encoder, weights, image)
    assert torch.allclose(features(encoder, moved, image + offset), expected, atol=1e-4)


def test_several_trained_channels_cannot_become_others():
    encoder = make_encoder("linear", channels=("T1", "T2"))
    assert repeat_channels(encoder, 2).keys() == encoder.weights.keys()
    with pytest.raises(ColipriError, match=r"trained on 2 channels \(T1, T2\).*data set has 3"):
        repeat_channels(encoder, 3)


def test_positions_are_interpolated_along_the_right_axes():
    arch = {"position_grid": [2, 3, 4], "num_register_tokens": 1}
    encoder = make_encoder("linear", arch_kwargs=arch)
    ramp = torch.arange(4.0).expand(2, 3, 4).reshape(1, 24, 1).expand(1, 24, 36)
    weights = {
        **encoder.weights,
        "eva.pos_embed": torch.cat((torch.full((1, 1, 36), 9.0), ramp), 1),
    }
    resized = resize_positions(weights, (2, 3, 4), (3, 2, 8))["eva.pos_embed"]
    assert resized.shape == (1, 1 + 3 * 2 * 8, 36)
    assert torch.all(resized[0, 0] == 9.0)
    grid = resized[0, 1:, 0].view(3, 2, 8)
    assert torch.all(grid.diff(dim=2) >= 0) and grid[0, 0, -1] > grid[0, 0, 0]
    assert torch.allclose(grid[0], grid[2])
    target = PrimusEncoder(1, **{**encoder.arch_kwargs, "position_grid": [3, 2, 8]})
    target.load_state_dict({**weights, "eva.pos_embed": resized})


def test_the_file_holds_only_what_is_loaded(tmp_path):
    whole = torch.zeros(1000, 1000)
    save_encoder(tmp_path / "encoder.pth", {"part": whole[:1]}, {})
    assert (tmp_path / "encoder.pth").stat().st_size < 20_000


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ColipriError, match=r"cannot write .*encoder\.pth"):
        save_encoder(tmp_path / "file" / "encoder.pth", {"a": torch.zeros(1)}, {})
