"""Every form of a model becomes the content of a checkpoint; what is missing is one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released_files import HEADS, write_released, write_text_folder
from safetensors.torch import load_file, save_file
from tiny_model import TEXTS, write_checkpoint, write_primus_s

from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.checkpoints.imported_model import import_weights
from colipri.checkpoints.model_source import load_model
from colipri.checkpoints.weight_conversion import model_from_released
from colipri.common.errors import ColipriError
from colipri.inference.predictor import ColipriPredictor
from colipri.preprocessing.body_grid import crop_padded
from colipri.run import export, import_model
from colipri.transfer.export import export_model, export_nnssl

OLD = Path(__file__).parents[1] / "fixtures" / "version_0_2_0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold folder with its checkpoint, and the export of it in ``exported``."""
    fold = tmp_path_factory.mktemp("run") / "fold_0"
    fold.mkdir()
    file = write_checkpoint(fold / "checkpoint_best.pth")
    export_model(load_checkpoint(file), fold.parent / "exported", file.name)
    return fold


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released weights' file; beside it the folder ``text``."""
    return write_released(tmp_path_factory.mktemp("released"))


@pytest.mark.parametrize("form", ["file", "fold folder", "export", "weights of the export"])
def test_every_form_of_a_trained_model_is_the_same_model(trained: Path, form: str) -> None:
    source = {
        "file": trained / "checkpoint_best.pth",
        "fold folder": trained,
        "export": trained.parent / "exported",
        "weights of the export": trained.parent / "exported" / "model.safetensors",
    }[form]
    expected = load_checkpoint(trained / "checkpoint_best.pth")
    found = load_model(source)
    for key in ("configuration", "orientation", "tokenizer", "dataset_json"):
        assert found[key] == expected[key]
    assert found["network_weights"].keys() == expected["network_weights"].keys()
    predictor = ColipriPredictor.from_checkpoint(source)
    whole = ColipriPredictor(expected, torch.device("cpu"))
    assert torch.equal(predictor.encode_texts(TEXTS), whole.encode_texts(TEXTS))


def test_an_export_knows_the_objectives_of_its_training(trained: Path) -> None:
    found = load_model(trained.parent / "exported")["settings"]["objectives"]
    assert found["contrastive"]["kind"] == "infonce"


def test_an_export_can_be_exported_again(trained: Path, tmp_path: Path) -> None:
    assert export.main(["-m", str(trained.parent / "exported"), "-o", str(tmp_path / "copy")]) == 0
    first = load_file(trained.parent / "exported" / "model.safetensors")
    again = load_file(tmp_path / "copy" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_checkpoints_of_earlier_versions_still_load() -> None:
    for file in sorted(OLD.rglob("*.pth")):
        assert load_model(file)["network_weights"]


def test_released_weights_alone_say_what_is_missing(released: Path) -> None:
    message = r"without its tokenizer .* colipri_import -i .*model\.safetensors --text_encoder"
    with pytest.raises(ColipriError, match=message):
        load_model(released)


def test_an_imported_model_computes_what_the_release_does(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our images are (S, A, R), its (R, A, S); nothing is left out, not even air."""
    text = str(released.parent / "text")
    arguments = ["-i", str(released), "--text_encoder", text, "-o", str(tmp_path / "model")]
    assert import_model.main(arguments) == 0
    assert "Next: colipri_zero_shot -m" in capsys.readouterr().out
    predictor = ColipriPredictor.from_checkpoint(tmp_path / "model", window=(16, 24, 32))
    assert predictor.keep_air
    assert predictor.configuration.spacing == [2.0, 2.0, 2.0]
    assert predictor.patch_size == (192, 192, 192)
    assert predictor.temperature == pytest.approx(0.07)

    state = model_from_released(load_file(released))
    encoder = PrimusEncoder(input_channels=1, embed_dim=396, depth=1, num_heads=HEADS).eval()
    encoder.load_state_dict(
        {n.removeprefix("image_encoder."): t for n, t in state.items() if "image_encoder" in n}
    )
    rng = np.random.default_rng(0)
    stored = rng.integers(-1400, 1400, (1, 16, 24, 32)).astype(np.int16)
    encoded = predictor.encode(_Array(stored))
    tokens = encoded.tokens
    assert encoded.grid == (2, 3, 4) and len(tokens) == 24
    theirs = torch.from_numpy(stored).float().clamp(-1000, 1000) / 1000
    with torch.inference_mode():
        expected = encoder(theirs.permute(0, 3, 2, 1).unsqueeze(1))
    expected = expected[0].unflatten(0, (4, 3, 2)).permute(2, 1, 0, 3).flatten(0, 2)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=2e-5)
    assert predictor.encode_texts(["No effusion."]).shape == (1, 24)
    assert predictor.untrained().encode_texts(["No effusion."]).shape == (1, 24)


def test_air_can_be_left_out_of_an_imported_model(released: Path, tmp_path: Path) -> None:
    text = str(released.parent / "text")
    target = tmp_path / "model"
    arguments = ["-i", str(released), "--text_encoder", text, "-o", str(target)]
    assert import_model.main([*arguments, "--leave_out_air"]) == 0
    assert not ColipriPredictor.from_checkpoint(target).keep_air
    assert import_model.main(arguments) == 1  # a model is there already


def _other_vocabulary(folder: Path) -> None:
    write_text_folder(folder, vocab_size=30522)


def _another_class(folder: Path) -> None:
    write_text_folder(folder, model_type="gpt2", architectures=["GPT2LMHeadModel"])


def _no_tokenizer(folder: Path) -> None:
    write_text_folder(folder)
    (folder / "tokenizer.json").unlink()


def _no_config(folder: Path) -> None:
    write_text_folder(folder)
    (folder / "config.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    write_text_folder(folder)
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_other_vocabulary, "do not belong together: the weights know"),
        (_another_class, r"of type 'gpt2' \(GPT2LMHeadModel\), not a BERT"),
        (_no_config, "has no config.json"),
        (_no_tokenizer, "neither tokenizer.json nor vocab.txt"),
        (_broken_tokenizer, "is not a tokenizer of BERT"),
    ],
)
def test_a_text_encoder_that_does_not_fit_is_refused(
    released: Path, tmp_path: Path, break_it: Any, message: str
) -> None:
    break_it(tmp_path / "text")
    with pytest.raises(ColipriError, match=message):
        import_weights(released, str(tmp_path / "text"))


def test_weights_that_are_not_finite_are_refused(released: Path, tmp_path: Path) -> None:
    weights = load_file(released)
    weights["image_encoder.backbone.eva.norm.bias"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    message = r"not finite, in 1 of \d+ tensors \(image_encoder\.eva\.norm\.bias\)"
    with pytest.raises(ColipriError, match=message):
        import_weights(tmp_path / "model.safetensors", str(released.parent / "text"))


def test_an_encoder_without_texts_becomes_an_image_tower(tmp_path: Path) -> None:
    file = tmp_path / "mae.pth"
    export_nnssl(load_checkpoint(write_primus_s(tmp_path / "best.pth")), file)
    with pytest.raises(ColipriError, match="does not say the HU window of its channel"):
        load_model(file)
    content = torch.load(file, weights_only=True)
    (images,) = content["nnssl_adaptation_plan"]["pretrain_plan"]["configurations"].values()
    images["normalization_schemes"] = ["ZScoreNormalization"]  # as nnssl trains
    torch.save(content, file)
    assert import_model.main(["-i", str(file), "-o", str(tmp_path / "tower")]) == 0
    predictor = ColipriPredictor.from_checkpoint(tmp_path / "tower")
    direct = ColipriPredictor.from_checkpoint(file)
    stored = np.random.default_rng(0).normal(size=(1, 32, 24, 40)).astype(np.float16)
    encoded = predictor.encode(_Array(stored))
    mean = torch.nn.functional.normalize(encoded.tokens.mean(dim=0), dim=0)
    torch.testing.assert_close(encoded.embedding, mean, rtol=0, atol=1e-5)
    assert torch.equal(encoded.tokens, direct.encode(_Array(stored)).tokens)
    with pytest.raises(ColipriError, match=r"is an image encoder alone .* no text encoder"):
        predictor.encode_texts(["No effusion."])


@dataclass(frozen=True)
class _Array:
    """A preprocessed volume that is nothing but air to the body detection."""

    array: np.ndarray
    name: str = "array"
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, a, b, c = self.array.shape
        return a, b, c

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        body = np.zeros([length // 8 for length in size], bool)
        body[0, 0, 0] = True
        return crop_padded(self.array, start, size, -1000), body


class _Runs:
    """A pickle that would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    hostile = tmp_path / "model.pth"
    hostile.write_bytes(pickle.dumps({"network_weights": _Runs(f"touch {trace}")}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one line is all that is said
        with pytest.raises(ColipriError, match="cannot be read as a checkpoint"):
            load_model(hostile)
    torch.save({"network_weights": _Runs(f"touch {trace}")}, hostile)
    with pytest.raises(ColipriError, match="cannot be read as a checkpoint"):
        load_model(hostile)
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_one_line(trained: Path, tmp_path: Path, share: float) -> None:
    shutil.copytree(trained.parent / "exported", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ColipriError, match="cannot be read as a checkpoint") as caught:
        load_model(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_another_network_in_the_plan_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent / "exported", tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    config = json.loads(file.read_text())
    architecture = config["plans"]["configurations"]["3d_lowres"]["architecture"]
    architecture["network_class_name"] = "os.system"
    file.write_text(json.dumps(config))
    with pytest.raises(ColipriError, match=r"names the class os\.system; colipri runs models of"):
        load_model(tmp_path / "other")


def test_weights_of_an_unknown_class_name_it(tmp_path: Path) -> None:
    save_file({"layer1.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["ResNetModel"]}')
    with pytest.raises(ColipriError, match=r"no image encoder .* names the class ResNetModel"):
        load_model(tmp_path)


def test_folders_say_what_they_lack(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match="name one of its folds: fold_0"):
        load_model(trained.parent)
    with pytest.raises(ColipriError, match="holds neither checkpoint_best"):
        load_model(tmp_path)
    (tmp_path / "checkpoint_latest.pth").touch()
    with pytest.raises(ColipriError, match="name one of its files: checkpoint_latest"):
        load_model(tmp_path)
    shutil.copytree(trained.parent / "exported", tmp_path / "partial")
    (tmp_path / "partial" / "tokenizer.json").unlink()
    with pytest.raises(ColipriError, match="copy the whole folder"):
        load_model(tmp_path / "partial")
    (tmp_path / "partial" / "config.json").unlink()
    with pytest.raises(ColipriError, match=r"without its config\.json and tokenizer\.json"):
        load_model(tmp_path / "partial")


def test_a_name_on_the_hub_needs_a_hub_or_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ColipriError, match="not in the local cache, and the hub does not give"):
        load_model("nobody/nothing-here")
