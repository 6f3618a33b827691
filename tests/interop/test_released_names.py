"""The released package and ours under its names: one scan from the file to the scores."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from released_files import BERT, write_text_folder
from safetensors.torch import load_file

import colipri
from colipri.released.scan import load_sample_ct
from colipri.run import import_model

pytestmark = pytest.mark.slow

SIZE, DEPTH = 96, 2
PROMPTS = ["No lung nodules present", "Lung nodules present"]
SAMPLE = Path(colipri.__file__).parent / (
    "dataset_conversion/semi_synthetic_chest/scans/lidc_0314.nii.gz"
)


@pytest.fixture(scope="module")
def folder(released_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scan, text encoder, and what the released package made of them (released_scan.py)."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("names")
    shutil.copy(SAMPLE, folder / "scan.nii.gz")
    sizes = {**BERT, "hidden_size": 768, "intermediate_size": 768}
    words = write_text_folder(folder / "text", model_type="bert", **sizes)
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(vocab_size=words, **sizes)).save_pretrained(folder / "text")
    script = Path(__file__).with_name("released_scan.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [released_python, str(script), str(folder), str(SIZE), str(DEPTH)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _model_and_processor(folder: Path, orientation: str):
    names = {
        "model.image_encoder.backbone.eva_depth": DEPTH,
        "model.text_encoder.backbone.pretrained_model_name_or_path": folder / "text",
    }
    model = colipri.get_model(folder / "model.safetensors", **names)
    processor = colipri.get_processor(
        **{
            "orientation": orientation,
            "input_size": SIZE,
            "processor.tokenizer.pretrained_model_name_or_path": folder / "text",
        }
    )
    return model, processor


@pytest.mark.parametrize("orientation", ["RAS", "SAR"])
def test_a_scan_gives_the_released_embeddings(folder: Path, orientation: str) -> None:
    model, processor = _model_and_processor(folder, orientation)
    expected = load_file(folder / f"{orientation}.safetensors")
    (image,) = processor.process_images(folder / "scan.nii.gz")
    batch = processor.to_images_batch([image])
    ids, mask = processor.process_text(PROMPTS)
    larger = torch.cat([batch, batch[:, :, : SIZE // 2]], dim=2)
    with torch.no_grad():
        text = model.encode_text(ids, mask)
        dense = model.encode_image(batch, project=True, normalize=True)
        found = {
            "image": image.data,
            "affine": torch.from_numpy(image.affine),
            "ids": ids,
            "patches": model.encode_image(batch),
            "pooled": model.encode_image(batch, pool=True, project=True),
            "dense": dense,
            "windows": model.encode_image(larger, project=True, window_size=SIZE),
            "text": text,
            "text_tokens": model.encode_text(ids, mask, pool=False),
            "text_unmasked": model.encode_text(ids),
            "heat": model.compute_similarities(dense, text),
        }
    pipeline = colipri.ZeroShotImageClassificationPipeline(model, processor)
    scores = pipeline(folder / "scan.nii.gz", PROMPTS)
    found["scores"] = torch.tensor([entry["score"] for entry in scores])
    assert [entry["label"] for entry in scores] == PROMPTS
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        difference = float((tensor.double() - expected[name].double()).abs().max())
        print(f"{orientation} {name}: largest difference {difference:.1e}")  # noqa: T201
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4, msg=name)


def test_an_imported_model_gives_the_same_without_any_argument(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the model card, as it is printed there but for the sizes of this test."""
    target = tmp_path / "model"
    text = str(folder / "text")
    arguments = ["-i", str(folder / "model.safetensors"), "--text_encoder", text, "-o", str(target)]
    assert import_model.main(arguments) == 0
    monkeypatch.setenv("colipri_released", str(target))
    model = colipri.get_model(**{"model.image_encoder.backbone.eva_depth": DEPTH})
    processor = colipri.get_processor(input_size=SIZE)
    pipeline = colipri.ZeroShotImageClassificationPipeline(model, processor)
    expected = load_file(folder / "RAS.safetensors")["scores"]
    scores = pipeline(load_sample_ct(clip=False), PROMPTS)
    found = torch.tensor([entry["score"] for entry in scores])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
