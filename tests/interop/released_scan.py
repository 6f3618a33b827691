"""Runs inside the environment of the released colipri 0.1.3: a scan end to end, random weights.

    python released_scan.py FOLDER SIZE DEPTH

Reads FOLDER/scan.nii.gz and the text encoder FOLDER/text (config, weights, tokenizer), and writes
FOLDER/model.safetensors and, per orientation, FOLDER/RAS.safetensors and FOLDER/SAR.safetensors.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from released_model import randomise
from safetensors.torch import save_file

import colipri

PROMPTS = ["No lung nodules present", "Lung nodules present"]


def main(folder: Path, size: int, depth: int) -> None:
    """Write the weights and what the package computes for each orientation."""
    if version("colipri") != "0.1.3" or not hasattr(colipri, "get_model"):
        raise SystemExit(f"this is not the released package but {colipri.__file__}")
    text = folder / "text"
    model = colipri.get_model(
        pretrained=False,
        **{
            "model.image_encoder.backbone.input_shape": [size] * 3,
            "model.image_encoder.backbone.eva_depth": depth,
            "model.text_encoder.backbone._target_": "transformers.BertForMaskedLM.from_pretrained",
            "model.text_encoder.backbone.pretrained_model_name_or_path": text,
            "model.text_encoder.backbone.trust_remote_code": False,
            "model.text_encoder.backbone.revision": "main",
            "model.temperature": 0.07,
        },
    )
    randomise(model)
    model.save_weights(folder / "model.safetensors")
    for orientation in ("RAS", "SAR"):
        processor = colipri.get_processor(
            **{
                "orientation": orientation,
                "input_size": size,
                "processor.tokenizer.pretrained_model_name_or_path": text,
                "processor.tokenizer.trust_remote_code": False,
                "processor.tokenizer.revision": "main",
            }
        )
        pipeline = colipri.ZeroShotImageClassificationPipeline(model, processor)
        scores = pipeline(folder / "scan.nii.gz", PROMPTS)
        with torch.no_grad():
            results = outputs(model, processor, folder / "scan.nii.gz", size)
        results["scores"] = torch.tensor([entry["score"] for entry in scores])
        target = folder / f"{orientation}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in results.items()}, target)


def outputs(
    model: torch.nn.Module, processor: object, scan: Path, size: int
) -> dict[str, torch.Tensor]:
    """Everything on the way from the file to similarities."""
    (image,) = processor.process_images(scan)
    batch = processor.to_images_batch([image])
    ids, mask = processor.process_text(PROMPTS)
    text = model.encode_text(ids, mask)
    dense = model.encode_image(batch, project=True, normalize=True)
    larger = torch.cat([batch, batch[:, :, : size // 2]], dim=2)
    return {
        "image": image.data,
        "affine": torch.from_numpy(image.affine),
        "ids": ids,
        "patches": model.encode_image(batch),
        "pooled": model.encode_image(batch, pool=True, project=True),
        "dense": dense,
        "windows": model.encode_image(larger, project=True, window_size=size),
        "text": text,
        "text_tokens": model.encode_text(ids, mask, pool=False),
        "text_unmasked": model.encode_text(ids),
        "heat": model.compute_similarities(dense, text),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
