"""VoxelFM as an image tower: its features, in our axes, and one line where it cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from checkpoints.voxelfm_files import DEPTH, HEADS, PATCH, WIDTH, features, write_voxelfm
from safetensors.numpy import load_file
from tiny_model import tiny, tiny_folders, write_checkpoint

from colipri.architectures.model import ColipriModel
from colipri.architectures.voxelfm import VoxelFMEncoder
from colipri.checkpoints.pretrained_encoder import load_pretrained_encoder
from colipri.checkpoints.warm_start import warm_start
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.plans.plans import Plans
from colipri.probing.fine_tuning import _choose_weights
from colipri.run import encode, export, import_model, probe

__all__ = ["tiny", "tiny_folders"]
SHAPE = (2 * PATCH, 3 * PATCH, 4 * PATCH)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voxelfm")
    file = write_voxelfm(folder / "99999.pth")
    assert import_model.main(["-i", str(file), "-o", str(folder / "tower")]) == 0
    return folder / "tower"


def _as_theirs(stored: np.ndarray) -> torch.Tensor:
    """(Superior, Anterior, Right) HU as what its code feeds: (Superior, Posterior, Left)."""
    flipped = torch.from_numpy(stored[:, ::-1, ::-1].copy()).float()
    return (flipped.clamp(-1000, 1900) + 573.8) / 461.3


def _scan(target: Path) -> np.ndarray:
    """Write a scan that is at 1 mm already, and return its voxels in our axes."""
    stored = np.random.default_rng(0).integers(-1400, 2400, SHAPE).astype(np.int16)
    # its first axis points right, its second anterior, its third superior
    nib.save(nib.Nifti1Image(stored.transpose(2, 1, 0), np.diag([1.0, 1, 1, 1])), target)
    return stored


def test_features_are_those_of_the_published_code(tower: Path, tmp_path: Path) -> None:
    stored = _scan(tmp_path / "scan.nii.gz")
    output = tmp_path / "features.safetensors"
    words = ["-m", str(tower), "-device", "cpu", "--force", "--dense", "encoder"]
    window = ["--window", *map(str, SHAPE)]
    scan = ["-i", str(tmp_path / "scan.nii.gz"), "-o", str(output)]
    assert encode.main([*words, *window, *scan]) == 0
    found = load_file(output)
    tokens, whole = features(_as_theirs(stored))
    expected = tokens.unflatten(0, (2, 3, 4)).flip((1, 2)).numpy()
    np.testing.assert_allclose(found["scan/dense"], expected, atol=4e-3)  # stored in half precision
    ours = ColipriPredictor.from_checkpoint(tower)
    encoder: Any = ours.model.image_encoder
    images = (torch.from_numpy(stored).float().clamp(-1000, 1900) + 573.8) / 461.3
    with torch.inference_mode():
        mine = encoder(images[None, None])[0].unflatten(0, (2, 3, 4))
    np.testing.assert_allclose(mine, expected, atol=2e-5)
    embedding = torch.nn.functional.normalize(whole, dim=0)
    np.testing.assert_allclose(found["embeddings"][0], embedding, atol=1e-5)


def test_tokens_that_are_left_out_are_not_seen(tower: Path) -> None:
    """Two images of a batch keep different tokens; each is encoded as if it were alone."""
    encoder: Any = ColipriPredictor.from_checkpoint(tower).model.image_encoder
    images = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    kept = torch.tensor([[0, 2, 5, 11, 23], [3, 4, 9, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.inference_mode():
        tokens, whole = encoder.encode(images, kept, mask)
    theirs = np.arange(24).reshape(2, 3, 4)[:, ::-1, ::-1].ravel()
    for row, count in ((0, 5), (1, 3)):
        flipped = images[row, 0].flip((1, 2))
        expected, class_token = features(flipped, torch.from_numpy(theirs[kept[row, :count]]))
        torch.testing.assert_close(tokens[row, :count], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(whole[row], class_token, rtol=0, atol=2e-5)
    assert not tokens[1, 3:].any()


def test_sizes_are_read_from_the_weights(tower: Path) -> None:
    config = json.loads((tower / "config.json").read_text())
    plan = config["plans"]["configurations"]["3d_lowres"]
    arguments = plan["architecture"]["arch_kwargs"]
    read = {key: arguments[key] for key in ("embed_dim", "depth", "num_heads", "rope_base")}
    assert read == {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "rope_base": 100.0}
    assert plan["patch_size"] == [336] * 3 and "VoxelFM" in plan["because"]["spacing"]
    assert "VoxelFM, 36 wide, 2 blocks" in (tower / "README.md").read_text()
    assert config["licences"] == [{"source": "VoxelFM weights", "text": "Apache-2.0"}]


def test_windows_keep_to_class_tokens(tower: Path, tmp_path: Path) -> None:
    """Halves of a volume: its embedding is the mean of theirs, in the same space."""
    _scan(tmp_path / "scan.nii.gz")
    half = (2 * PATCH, 3 * PATCH, 2 * PATCH)
    predictor = ColipriPredictor.from_checkpoint(tower, window=half)
    predictor.refuse_wrong_scans = False
    (outcome,) = predictor.encode_files(_input(tmp_path))
    assert not isinstance(outcome, ColipriError)
    volume, encoded = outcome
    parts = []
    for start in (0, 2 * PATCH):
        crop, _ = volume.crop((0, 0, start), half)
        parts.append(features(_as_theirs(crop[0]))[1])
    mean = torch.stack([torch.nn.functional.normalize(part, dim=0) for part in parts]).mean(dim=0)
    expected = torch.nn.functional.normalize(mean, dim=0)
    torch.testing.assert_close(encoded.embedding, expected, rtol=0, atol=1e-5)


def _input(folder: Path) -> Any:
    from colipri.inference.inputs import find_images

    return find_images(folder / "scan.nii.gz")


def test_what_it_cannot_do_is_one_line(
    tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ColipriError, match="is VoxelFM, not Primus: its tokens do not fit nnU-Net"):
        load_pretrained_encoder(tower)
    content = torch.load(write_checkpoint(tmp_path / "best.pth"), weights_only=True)
    plan = Plans.from_dict(content["plans"]).configuration("3d_lowres")
    with pytest.raises(ColipriError, match="not Primus: no training starts from it"):
        warm_start(ColipriModel.from_plans(plan, 300), tower)
    with pytest.raises(ColipriError, match=r"is an image encoder alone \(VoxelFM\)"):
        ColipriPredictor.from_checkpoint(tower).encode_texts(["effusion"])
    with pytest.raises(ColipriError, match="tokens of VoxelFM cannot be merged"):
        ColipriPredictor.from_checkpoint(tower, merge_tokens=0.5)
    with pytest.raises(ColipriError, match="only heads on its features can be trained"):
        _choose_weights(ColipriPredictor.from_checkpoint(tower).model, 1)
    words = ["-m", str(tower), "-o", str(tmp_path / "tower.onnx"), "--format", "onnx"]
    assert export.main(words) == 1
    assert "no encoder but Primus" in " ".join(capsys.readouterr().err.split())
    words = ["-m", str(tower), "-o", str(tmp_path / "tower.pth"), "--format", "nnssl"]
    assert export.main(words) == 1
    assert "know only Primus, and this encoder is another network" in capsys.readouterr().err


def test_other_transformers_are_not_taken_for_it(tmp_path: Path) -> None:
    file = write_voxelfm(tmp_path / "other.pth")
    content = torch.load(file, weights_only=True)
    del content["teacher"]["backbone.module.rope_embed.periods"]
    torch.save(content, file)
    with pytest.raises(ColipriError, match=r"without rope_embed\.periods: not one of VoxelFM"):
        read_weight_file(file)
    kernel = "backbone.module.patch_embed.proj.weight"
    flat = write_voxelfm(tmp_path / "flat.pth", **{kernel: torch.zeros(WIDTH, 1, PATCH, PATCH)})
    with pytest.raises(ColipriError, match="holds no image encoder that is known here"):
        read_weight_file(flat)


def test_the_published_size_is_built() -> None:
    """ssl_default_config.yaml: 864 wide, 12 blocks, 12 heads; names as in its code."""
    with torch.device("meta"):
        encoder = VoxelFMEncoder(1, 864, 12, 12)
    assert encoder.blocks[11].attn.qkv.weight.shape == (2592, 864)
    assert sum(p.numel() for p in encoder.parameters()) == 110_028_672


@pytest.mark.slow
def test_heads_are_trained_on_its_features(
    tiny: Any, tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(tower), "-d", "950", "-device", "cpu", "--split", "val"]
    result = tmp_path / "probe.json"
    heads = ["--methods", "logistic", "--resamples", "20", "-o", str(result)]
    window = ["--window", "112", "112", "112"]
    assert probe.main([*words, *window, *heads]) == 0
    assert "No zero-shot beside the heads" in capsys.readouterr().out
