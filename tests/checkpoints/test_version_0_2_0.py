"""A checkpoint that version 0.2.0 wrote still loads everywhere (tests/fixtures/version_0_2_0)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_dataset import write_tiny_dataset

from colipri.architectures.generation import GenerationSettings
from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.inference.labelled_cases import collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.report_writer import ReportWriter
from colipri.plans.plans import load_plans
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.run.export import main as export
from colipri.run.train import main as train
from colipri.training.run_folder import run_folder

OLD = Path(__file__).parents[1] / "fixtures" / "version_0_2_0"
CHECKPOINT = OLD / "checkpoint_latest.pth"
DATASET = "Dataset950_Tiny"


@pytest.fixture(scope="module")
def expected() -> Any:
    return json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three folders with the raw data set and the old plan; nothing is preprocessed yet."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"colipri_{name}", str(tmp_path / name))
    write_tiny_dataset(tmp_path / "raw", details="The heart has size {number}.")
    (tmp_path / "preprocessed" / DATASET).mkdir()
    shutil.copy(OLD / "colipriPlans.json", tmp_path / "preprocessed" / DATASET)
    return tmp_path


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in OLD.iterdir()) < 1_000_000


def test_inference_gives_what_it_gave(folders: Path, expected: Any) -> None:
    predictor = ColipriPredictor.from_checkpoint(CHECKPOINT)
    texts = predictor.encode_texts(["There is a pleural effusion.", "No pleural effusion."])
    assert torch.allclose(texts, torch.tensor(expected["text_embeddings"]), atol=1e-4)
    case = collect_cases(predictor, DATASET, "raw").cases["case_000"]
    encoded = predictor.encode(case.volume())
    image = torch.tensor(expected["image_embedding_of_case_000"])
    assert torch.allclose(encoded.embedding, image, atol=1e-4)
    report = ReportWriter(predictor, GenerationSettings(max_tokens=8)).write(encoded)
    assert report == expected["report_of_case_000"]


def test_export_takes_it(tmp_path: Path) -> None:
    assert export(["-m", str(CHECKPOINT), "-o", str(tmp_path)]) == 0
    weights = load_checkpoint(CHECKPOINT)["network_weights"]
    exported = load_file(tmp_path / "model.safetensors")
    assert weights.keys() == exported.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in weights.items())


def test_a_new_run_starts_from_it(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess_dataset(DATASET, load_plans(DATASET), ["3d_lowres"], num_processes=1)
    options = ["--epochs", "1", "--iterations_per_epoch", "1", "-num_workers", "0"]
    start = ["-pretrained_weights", str(CHECKPOINT), "-tr", "ColipriTrainer_C"]
    assert train(["950", "3d_lowres", "0", *start, *options, "-device", "cpu"]) == 0
    log = capsys.readouterr().out
    assert "colipri checkpoint, ColipriTrainer_CRM on Dataset950_Tiny" in log
    assert "loaded: image encoder, image projector, image pooler" in log


def test_training_continues_as_if_it_had_never_stopped(folders: Path, expected: Any) -> None:
    preprocess_dataset(DATASET, load_plans(DATASET), ["3d_lowres"], num_processes=1)
    folder = run_folder(DATASET, "ColipriTrainer_CRM", "colipriPlans", "3d_lowres", 0)
    folder.mkdir(parents=True)
    shutil.copy(CHECKPOINT, folder)
    command = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_CRM", "-device", "cpu", "--c"]
    assert train(command) == 0
    history = load_checkpoint(folder / "checkpoint_final.pth")["history"]
    for epoch, wanted in zip(history, expected["losses_of_the_uninterrupted_run"], strict=True):
        for side in ("train", "val"):
            assert {k: epoch[side][k] for k in wanted[side]} == pytest.approx(
                wanted[side], rel=1e-3
            )
