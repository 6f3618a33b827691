"""Runs inside the environment of the released colipri 0.1.3: its outputs for random weights.

    python released_model.py FOLDER

Reads FOLDER/input.safetensors (image, token_ids, attention_mask) and the text encoders
FOLDER/bert (plain) and FOLDER/masked_lm (wrapped, as CXR-BERT is), and writes for each
FOLDER/<name>.safetensors (weights), FOLDER/<name>.pth and FOLDER/<name>_output.safetensors.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import colipri

TEXT_ENCODERS = {
    "bert": "transformers.AutoModel.from_pretrained",
    "masked_lm": "transformers.BertForMaskedLM.from_pretrained",
}


def main(folder: Path) -> None:
    """Both variants of the text encoder, one after the other."""
    if version("colipri") != "0.1.3" or not hasattr(colipri, "get_model"):
        raise SystemExit(f"this is not the released package but {colipri.__file__}")
    given = load_file(folder / "input.safetensors")
    for name, target in TEXT_ENCODERS.items():
        overrides = {
            "model.image_encoder.backbone.input_shape": list(given["image"].shape[2:]),
            "model.text_encoder.backbone._target_": target,
            "model.text_encoder.backbone.pretrained_model_name_or_path": folder / name,
            "model.text_encoder.backbone.trust_remote_code": False,
            "model.text_encoder.backbone.revision": "main",
            "model.temperature": 0.07,
        }
        model = colipri.get_model(pretrained=False, **overrides)
        randomise(model)
        model.save_weights(folder / f"{name}.safetensors")
        model.save_weights(folder / f"{name}.pth")
        save_file(outputs(model, given), folder / f"{name}_output.safetensors")


def randomise(model: torch.nn.Module) -> None:
    """Weights of a trained size: with fresh ones attention is uniform and hides mistakes."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.5 / parameter[0].numel() ** 0.5))
            else:
                is_gain = "norm" in name.lower() and name.endswith("weight")
                parameter.copy_(0.3 * noise + (1.0 if is_gain else 0.0))


@torch.no_grad()
def outputs(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the released package computes, and the numbers that a user sees in the end."""
    image = given["image"]
    text = model.encode_text(given["token_ids"], given["attention_mask"])
    pooled = model.encode_image(image, pool=True, project=True, normalize=True)
    dense = model.encode_image(image, project=True, normalize=True)
    results = {
        "tokens": model.encode_image(image),
        "pooled": pooled,
        "dense": dense,
        "text": text,
        "text_unnormalised": model.encode_text(
            given["token_ids"], given["attention_mask"], normalize=False
        ),
        "probabilities": model.classify(pooled, text),
        "heat_map": model.compute_similarities(dense, text),
    }
    return {name: tensor.contiguous() for name, tensor in results.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
