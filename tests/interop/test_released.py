"""The released colipri 0.1.3 and ours compute the same with the same weights."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from architectures.tiny_encoder import striped_volume
from safetensors.torch import load_file, save_file
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.architectures.pretrained_text import CXR_BERT
from colipri.architectures.primus import PRESETS, PrimusEncoder
from colipri.architectures.text_encoder import TextEncoder
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.checkpoints.warm_start import warm_start
from colipri.checkpoints.weight_conversion import model_from_released
from colipri.plans.architecture import BertSettings, TextEncoderPlan

pytestmark = pytest.mark.slow

SHAPE = (48, 32, 64)
BERT = {  # CXR-BERT's widths; two layers suffice to notice a wrong name
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
VOCABULARY = 1000
VARIANTS = ("bert", "masked_lm")


@pytest.fixture(scope="module")
def folder(released_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, weights and outputs of the released package (see released_model.py)."""
    from transformers import BertConfig, BertForMaskedLM, BertModel

    folder = tmp_path_factory.mktemp("compared")
    config = BertConfig(vocab_size=VOCABULARY, **BERT)
    BertModel(config).save_pretrained(folder / "bert")
    BertForMaskedLM(config).save_pretrained(folder / "masked_lm")
    lengths = torch.tensor([[11], [4], [7]])
    given = {
        "image": striped_volume(SHAPE, batch=2),
        "token_ids": torch.randint(
            5, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1)
        ),
        "attention_mask": (torch.arange(11) < lengths).long(),
    }
    save_file({k: v.contiguous() for k, v in given.items()}, folder / "input.safetensors")
    script = Path(__file__).with_name("released_model.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [released_python, str(script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _model() -> ColipriModel:
    text = TextEncoder(
        TextEncoderPlan(source="scratch", arch_kwargs=BertSettings.from_dict(BERT)),
        VOCABULARY,
        embed_dim=768,
    )
    image = PrimusEncoder(input_channels=1, **PRESETS["M"])
    return ColipriModel(image, text, embed_dim=768, pool_heads=12).eval()


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_both_towers_give_the_released_embeddings(folder: Path, variant: str, suffix: str):
    model = _model()
    load_state_dict_reported(model, model_from_released(_weights(folder / f"{variant}{suffix}")))
    given = load_file(folder / "input.safetensors")
    expected = load_file(folder / f"{variant}_output.safetensors")
    with torch.no_grad():
        features = model.encode_image(given["image"])
        text = model.encode_text(given["token_ids"], given["attention_mask"])
        raw_text = model.text_encoder(given["token_ids"], given["attention_mask"])
        dense = model.project_tokens(features.tokens)
        logits = features.embedding @ text.T * model.temperature_scale()
    found = {
        "tokens": _as_grid(features.tokens),
        "pooled": features.embedding,
        "dense": _as_grid(dense),
        "text": text,
        "text_unnormalised": raw_text,
        "probabilities": logits.softmax(dim=-1),
        "heat_map": _as_grid(dense @ text.T),
    }
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        difference = float((tensor - expected[name]).abs().max())
        print(f"{variant}{suffix} {name}: largest difference {difference:.1e}")  # noqa: T201
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4, msg=name)


def test_a_warm_start_from_the_released_file_sees_our_axes_and_intensities(folder: Path):
    """Our images are (S, A, R) and in other units; the embeddings are those of the release."""
    model = _model()
    report = warm_start(
        model,
        folder / "masked_lm.safetensors",
        intensities=(-1000.0, 500.0),
        spacing=(2.0, 2.0, 2.0),
        text_encoder=CXR_BERT,
    )
    assert report.left == {}
    assert set(report.loaded) >= {"image encoder", "image pooler", "text encoder", "temperature"}
    given = load_file(folder / "input.safetensors")
    expected = load_file(folder / "masked_lm_output.safetensors")
    hounsfield = 1000 * given["image"].permute(0, 1, 4, 3, 2)
    with torch.no_grad():
        embedding = model.encode_image((hounsfield + 1000) / 500).embedding
        text = model.encode_text(given["token_ids"], given["attention_mask"])
    torch.testing.assert_close(embedding, expected["pooled"], rtol=0, atol=1e-4)
    torch.testing.assert_close(text, expected["text"], rtol=0, atol=1e-4)


def _as_grid(tokens: Tensor) -> Tensor:
    """(B, N, E) -> (B, E, G0, G1, G2)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size // 8 for size in SHAPE))
