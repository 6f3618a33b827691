"""``-pretrained_weights`` from every kind of file: it computes here what it computed there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures.tiny_encoder import randomise, striped_volume
from dynamic_network_architectures.architectures.primus import Primus
from interop.nnssl_model import NnsslAutoencoder, save_nnssl
from safetensors.torch import save_file
from tiny_dataset import PLANS
from tiny_model import write_checkpoint
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.warm_start import WarmStart, warm_start
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.common.errors import ColipriError
from colipri.plans.plans import Configuration

CUBE = (24, 24, 24)
WIDE = {"embed_dim": 396, "depth": 2, "num_heads": 6}  # Primus-S, but two blocks deep
HU = (40.0, 300.0)


def _configuration(**arch: Any) -> dict[str, Any]:
    configuration = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs.update({"stem": "linear", "stem_kwargs": {}, **WIDE, **arch})
    return configuration


def _model(seed: int = 3, **arch: Any) -> ColipriModel:
    model = ColipriModel.from_plans(Configuration.from_dict(_configuration(**arch)), 300)
    randomise(model, seed)
    return model.eval()


def _theirs(shape: tuple[int, ...] = CUBE, **changes: Any) -> nn.Module:
    """Primus with random weights, as nnU-Net trains it."""
    settings: dict[str, Any] = {
        "input_channels": 1,
        "embed_dim": 396,
        "eva_depth": 2,
        "eva_numheads": 6,
        "patch_embed_size": (8, 8, 8),
        "num_classes": 3,
        "input_shape": shape,
        "init_values": 0.1,
        "scale_attn_inner": True,
        "use_abs_pos_embed": False,
        **changes,
    }
    network = Primus(**settings)
    randomise(network)
    return network.eval()


def _features(network: nn.Module, image: Tensor) -> Tensor:
    network.up_projection = nn.Identity()
    with torch.no_grad():
        grid: Tensor = network(image)
    return grid.flatten(2).transpose(1, 2)


def _same(ours: PrimusEncoder, image: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-3)


def _nnunet_plans(transpose: list[int]) -> dict[str, Any]:
    back = [transpose.index(axis) for axis in range(3)]
    intensities = {"mean": HU[0], "std": HU[1], "percentile_00_5": -1000, "percentile_99_5": 1000}
    return {
        "transpose_forward": transpose,
        "transpose_backward": back,
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {
            "3d_fullres": {
                "patch_size": [24, 32, 40],
                "spacing": [3.0, 1.0, 2.0],
                "normalization_schemes": ["CTNormalization"],
            }
        },
    }


def _save_nnunet(path: Path, network: nn.Module, transpose: list[int]) -> Path:
    """The entries of an nnU-Net checkpoint, numpy numbers in its log included."""
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(1.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {"plans": _nnunet_plans(transpose), "configuration": "3d_fullres"},
            "trainer_name": "nnUNet_Primus_S_Trainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        path,
    )
    return path


def test_an_nnunet_checkpoint_of_primus_with_its_axes_and_intensities(tmp_path: Path):
    network = _theirs((24, 32, 40))
    path = _save_nnunet(tmp_path / "checkpoint_final.pth", network, [1, 0, 2])
    model = _model()
    report = warm_start(model, path, intensities=(-1000.0, 500.0), spacing=(1.0, 3.0, 2.0))
    assert report.loaded == ["image encoder"]
    assert report.left["text encoder"] == "not in the file"
    hounsfield = 400 * striped_volume((32, 24, 40)) - 200
    theirs = (hounsfield.transpose(2, 3) - HU[0]) / HU[1]  # nnU-Net put axis 1 first
    expected = _features(network, theirs).unflatten(1, (3, 4, 5)).transpose(1, 2).flatten(1, 3)
    _same(model.image_encoder, (hounsfield + 1000) / 500, expected)
    assert any("stem adapted from (HU - 40) / 300 to (HU - -1000) / 500" in n for n in report.notes)
    assert not any("trained at" in note for note in report.notes), "spacing was turned as well"


def test_bare_weights_of_primus_and_wrappers(tmp_path: Path):
    network = _theirs()
    wrapped = {f"module._orig_mod.{name}": t for name, t in network.state_dict().items()}
    torch.save(wrapped, tmp_path / "bare.pth")
    model = _model()
    report = warm_start(model, tmp_path / "bare.pth")
    assert "weights of Primus" in report.source
    image = striped_volume(CUBE)
    _same(model.image_encoder, image, _features(network, image))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("shape", [CUBE, (24, 24, 40)])
def test_an_nnssl_autoencoder_with_its_token_order_corrected(
    tmp_path: Path, shape: tuple[int, ...], absolute: bool
):
    network = NnsslAutoencoder(shape, absolute)
    randomise(network)
    network.eval()
    path = save_nnssl(tmp_path / "checkpoint.pth", network, shape, "PrimusS")
    grid = [size // 8 for size in shape]
    model = _model(**({"position_grid": grid} if absolute else {}))
    report = warm_start(model, path, spacing=(8.0, 8.0, 8.0))
    assert any("token order corrected" in note for note in report.notes)
    assert "it was trained at 1 x 1 x 1 mm, this run is at 8 x 8 x 8 mm" in report.notes
    image = striped_volume(shape)  # different along each axis
    with torch.no_grad():
        expected = network(image)
    _same(model.image_encoder, image, expected)


def test_an_nnssl_autoencoder_that_cannot_be_mended_is_refused(tmp_path: Path):
    network = NnsslAutoencoder((16, 24, 40), False)
    path = save_nnssl(tmp_path / "checkpoint.pth", network, (16, 24, 40), "PrimusS")
    with pytest.raises(ColipriError, match="trained it on 2x3x5 tokens"):
        warm_start(_model(), path)
    save_nnssl(path, network, CUBE, "ResEncL")
    with pytest.raises(ColipriError, match="encoder of class ResEncL; only Primus fits here"):
        warm_start(_model(), path)


def test_our_checkpoint_comes_whole_where_the_vocabulary_is_the_same(tmp_path: Path):
    path = write_checkpoint(tmp_path / "checkpoint_final.pth")
    stored = torch.load(path, weights_only=True)
    configuration = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]
    words = stored["network_weights"]["text_encoder.encoder.embeddings.word_embeddings.weight"]
    model = ColipriModel.from_plans(Configuration.from_dict(configuration), len(words))
    report = warm_start(model, path, (-1000.0, 500.0), (8.0, 8.0, 8.0), stored["tokenizer"])
    assert report.left == {}
    assert report.notes == []
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored["network_weights"][name]), name
    other = ColipriModel.from_plans(Configuration.from_dict(configuration), len(words))
    before = {name: t.clone() for name, t in other.state_dict().items()}
    report = warm_start(other, path, (-1000.0, 500.0), (8.0, 8.0, 8.0), "other words")
    assert set(report.left) == {"text encoder", "temperature"}
    assert report.loaded == ["image encoder", "image projector", "image pooler"]
    for name, tensor in other.state_dict().items():
        kept = name.startswith(("text_encoder.", "logit_"))
        assert torch.equal(tensor, before[name] if kept else stored["network_weights"][name]), name


def test_released_names_turn_to_our_axes(tmp_path: Path):
    """Its file by its names; the package itself is compared in test_released.py."""
    network = _theirs()
    state = {
        f"image_encoder.backbone.{name}": tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("up_projection")
    }
    state["softmax_temperature"] = torch.tensor(0.07)
    save_file(state, tmp_path / "anything.bin")  # recognised by content, not by its ending
    model = _model()
    report = warm_start(model, tmp_path / "anything.bin", intensities=(0.0, 500.0))
    assert "released COLIPRI model" in report.source
    image = striped_volume(CUBE)
    theirs = _features(network, image.permute(0, 1, 4, 3, 2)).unflatten(1, (3, 3, 3))
    # the same HU: divided by 1000 there and by 500 here
    _same(model.image_encoder, 2 * image, theirs.permute(0, 3, 2, 1, 4).flatten(1, 3))


def test_several_channels_repeat_the_one_that_was_trained(tmp_path: Path):
    network = _theirs()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = _model(input_channels=3)
    report = warm_start(model, tmp_path / "weights.pth")
    assert "its one input channel was repeated 3 times and divided by 3" in report.notes
    image = striped_volume(CUBE)
    _same(model.image_encoder, image.repeat(1, 3, 1, 1, 1), _features(network, image))


def test_a_learned_position_table_is_resized_or_left_out_and_said(tmp_path: Path):
    network = _theirs((24, 32, 40), use_abs_pos_embed=True)
    path = _save_nnunet(tmp_path / "checkpoint.pth", network, [0, 1, 2])
    without = warm_start(_model(), path)
    assert "this plan has none" in without.left["absolute position embedding"]
    model = _model(position_grid=[6, 8, 10])
    report = warm_start(model, path)
    assert any("resized from (3, 4, 5) to (6, 8, 10)" in note for note in report.notes)
    table = network.eva.pos_embed.detach()[0].unflatten(0, (3, 4, 5))
    resized = model.image_encoder.eva.pos_embed.detach()[0].unflatten(0, (6, 8, 10))
    coarse = torch.nn.functional.avg_pool3d(resized.permute(3, 0, 1, 2), 2).permute(1, 2, 3, 0)
    assert torch.nn.functional.cosine_similarity(coarse, table, dim=-1).min() > 0.5


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"patch_embed_size": (4, 8, 8)}, {}, "its token patch is 4x8x8 voxels, this plan's is 8x"),
        ({"eva_depth": 3}, {}, "its transformer is 396 wide and 3 blocks deep, this plan's is 396"),
        ({"input_channels": 2}, {}, "it takes 2 channels, this plan 1; only one can be repeated"),
        ({}, {"stem": "light"}, "its stem is linear, this plan's is light"),
        ({}, {"num_heads": 11}, "num_heads=6 when planning"),
        ({"num_register_tokens": 2}, {}, "1 unknown: register_tokens"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(
    tmp_path: Path, theirs: dict, ours: dict, message: str
):
    torch.save(_theirs(**theirs).state_dict(), tmp_path / "weights.pth")
    model = _model(**ours)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ColipriError) as caught:
        warm_start(model, tmp_path / "weights.pth")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


def test_files_that_are_no_weights_are_one_line(tmp_path: Path):
    cases: dict[str, Any] = {
        "text.pth": b"hello",
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
        "empty.pth": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ColipriError, match=name) as caught:
            read_weight_file(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"resnet.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(ColipriError, match=r"no image encoder that is known here.*resnet\.weight"):
        read_weight_file(tmp_path / "resnet.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ColipriError, match="holds a list, not a dictionary"):
        read_weight_file(tmp_path / "list.pth")
    with pytest.raises(ColipriError, match="there is no file of weights"):
        read_weight_file(tmp_path / "missing.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"network_weights": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ColipriError, match="cannot be read as weights"):
        read_weight_file(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


def test_the_report_says_all_of_it():
    report = WarmStart("a.pth (kind)", ["image encoder"], {"text encoder": "why"}, ["mended"])
    assert report.lines() == [
        "Pretrained weights from a.pth (kind)",
        "  loaded: image encoder",
        "  not loaded: text encoder (why)",
        "  note: mended",
    ]
