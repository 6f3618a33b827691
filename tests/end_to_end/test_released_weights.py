"""From the released model's file to everything that a user does with a model, by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from released_files import SHARED, WIDTH, write_released
from safetensors.numpy import load_file
from tiny_model import tiny, tiny_folders
from transfer.nnunet_data import fingerprint_of, write_nnunet_dataset

from colipri.run import (
    encode,
    heatmap,
    import_model,
    index,
    plan_and_preprocess,
    probe,
    retrieve,
    train,
    transfer_to_nnunet,
    zero_shot,
)

__all__ = ["tiny", "tiny_folders"]
DATASET = "Dataset950_Tiny"
PLANS = "releasedPlans"  # beside the plan that other tests share


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported model of random released weights; beside it ``text``, with weights."""
    folder = tmp_path_factory.mktemp("released")
    weights = write_released(folder)
    write_text_weights(folder / "text")
    target = folder / "MODEL"
    text = str(folder / "text")
    arguments = ["-i", str(weights), "--text_encoder", text, "-o", str(target)]
    assert import_model.main([*arguments, "--leave_out_air"]) == 0
    return target


def write_text_weights(folder: Path) -> None:
    """The weights that CXR-BERT's folder has beside its configuration, for further training."""
    from transformers import BertConfig, BertForMaskedLM

    config = (folder / "config.json").read_text()
    entries = json.loads(config)
    del entries["model_type"], entries["architectures"]
    torch.manual_seed(5)
    BertForMaskedLM(BertConfig(**entries)).save_pretrained(folder)
    (folder / "config.json").write_text(config)


@pytest.fixture
def scan(tiny: Any) -> str:
    return str(tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz")


@pytest.mark.slow
def test_every_use_of_an_imported_model(
    tiny: Any, model: Path, scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(model), "-device", "cpu"]
    scores = tmp_path / "scores.json"
    found = ["-f", "pleural effusion", "-o", str(scores)]
    assert zero_shot.main([*words, "-i", scan, *found]) == 0
    (entry,) = json.loads(scores.read_text())["images"]
    assert 0 < entry["scores"]["pleural effusion"] < 1

    dense = tmp_path / "dense.safetensors"
    assert encode.main([*words, "-i", scan, "-o", str(dense), "--dense", "encoder"]) == 0
    arrays = load_file(dense)
    assert arrays["embeddings"].shape == (1, SHARED)
    assert arrays["case_001/dense"].shape == (24, 24, 24, WIDTH)

    maps = tmp_path / "effusion.nii.gz"
    assert heatmap.main([*words, "-i", scan, "-f", "pleural effusion", "-o", str(maps)]) == 0
    drawn, source = nib.load(maps), nib.load(scan)
    assert drawn.shape == source.shape and np.allclose(drawn.affine, source.affine)
    assert float(np.abs(drawn.get_fdata()).max()) > 0

    where = str(tmp_path / "index")
    assert index.main([*words, "-d", "950", "--split", "val", "-o", where]) == 0
    capsys.readouterr()
    assert retrieve.main([*words, "--index", where, "-q", "There is a pleural effusion."]) == 0
    assert retrieve.main([*words, "--index", where, "-q", scan]) == 0
    assert "case_001" in capsys.readouterr().out

    features = ["--features", str(tmp_path / "features")]
    methods = ["--methods", "logistic", "--split", "val", "--resamples", "20"]
    result = tmp_path / "probe.json"
    assert probe.main([*words, "-d", "950", *features, *methods, "-o", str(result)]) == 0
    assert "logistic" in json.loads(result.read_text())["methods"]


@pytest.mark.slow
def test_an_imported_model_goes_into_nnunet(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    folder = write_nnunet_dataset(tmp_path / "raw")
    target = tmp_path / "preprocessed" / folder.name
    target.mkdir()
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint_of(folder)))
    assert transfer_to_nnunet.main(["-d", "411", "-m", str(model), "--no_pp"]) == 0
    assert "load into nnU-Net's network" in capsys.readouterr().out
    stored = torch.load(target / "colipriPlans_encoder.pth", weights_only=True)
    assert any(name.startswith("eva.blocks.0") for name in stored["network_weights"])


@pytest.mark.slow
def test_an_imported_model_is_trained_further(
    tiny: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(model.parent / "text")
    plan = ["-d", "950", "-c", "3d_lowres", "-np", "1", "-overwrite_plans_name", PLANS]
    like = ["--like", str(model), "-text_encoder", text]
    assert plan_and_preprocess.main([*plan, *like]) == 0
    assert f"-p {PLANS} -pretrained_weights {model}" in capsys.readouterr().out
    start = ["950", "3d_lowres", "0", "-p", PLANS, "-pretrained_weights", str(model)]
    short = ["--epochs", "1", "--iterations_per_epoch", "1", "--set", "batch_size=2"]
    devices = ["-device", "cpu", "-num_workers", "0", "-tr", "ColipriTrainer_C"]
    assert train.main([*start, *short, *devices]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "loaded: image encoder, image projector, image pooler, text encoder, temperature" in said
    assert "not loaded" not in said and "note: stem adapted" not in said
