"""Whole data sets that are odd, on disk: trained as they are, or refused in one line."""

from __future__ import annotations

import json
import logging
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from tiny_dataset import install_example_plans, write_tiny_dataset

from colipri.plans.plans import load_plans
from colipri.preprocessing.preprocessor import preprocess_dataset
from colipri.raw_dataset.collection import join_datasets
from colipri.run.train import main as train
from colipri.training.options import RunOptions
from colipri.training.variants import find_trainer

NAME = "Dataset950_Tiny"
# 001 and 005 validate, the others are trained on
REPORTS = {
    "000": "Normal",
    "001": "FINDINGS:\n\nIMPRESSION:\n\nSmall effusion.",
    "004": "FINDINGS: " + "A nodule of the left lung is seen again. " * 2500,  # 20,000 words
    "005": "Plevral efüzyon izlenmedi.",
    "008": "No effusion. No nodule. No mass.",
    "009": "Effu\x07sion.\x0bNo nodule.\x1b[31m",
    "010": "双肺未见结节。心影不大。 عقدة في الرئة اليمنى",
    "011": "Effusion 😀👩🏽‍⚕️. No nodule.",
}


def _prepare(preprocessed: Any, name: str = NAME) -> None:
    path = install_example_plans(preprocessed, name)
    plans = json.loads(path.read_text()) | {"dataset_name": name}
    path.write_text(json.dumps(plans))
    preprocess_dataset(name, load_plans(name), ["3d_lowres"], num_processes=1)


def _trainer(trainer: str, folder: Any, name: str = NAME, fold: int | str = 0) -> Any:
    cls = find_trainer(trainer)
    run = RunOptions(
        {"training.num_epochs": 1, "training.num_iterations_per_epoch": 3}, num_workers=0
    )
    return cls(load_plans(name), "3d_lowres", fold, folder, torch.device("cpu"), run)


def test_odd_reports_train_all_objectives(workspace: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_tiny_dataset(workspace.raw, num_cases=14)
    for case, text in REPORTS.items():
        (folder / "reportsTr" / f"case_{case}.txt").write_bytes(text.encode("utf-8"))
    _prepare(workspace.preprocessed)
    trainer = _trainer("ColipriTrainer_CRMO", workspace.results)
    with caplog.at_level(logging.INFO):
        trainer.run_training()
    used = {case.removeprefix("case_") for case in trainer.data.train_cases}
    assert used == {*REPORTS, "012", "013"} - {"001", "005"}
    for part in ("train", "val"):
        values = trainer.progress.history[-1][part]
        for name in trainer.objectives:
            assert np.isfinite(values[f"{name}/loss"]), (part, name)
    logged = caplog.text.lower()
    assert "nodule of the left lung" not in logged and "izlenmedi" not in logged


@pytest.mark.parametrize("letters", ["C", "CRM", "CRMO"])
def test_images_alone_are_refused_in_one_line(
    letters: str, workspace: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_dataset(workspace.raw, num_cases=4, image_only=4)
    _prepare(workspace.preprocessed)
    capsys.readouterr()
    arguments = ["950", "3d_lowres", "0", "-tr", f"ColipriTrainer_{letters}", "-device", "cpu"]
    assert train(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "-tr ColipriTrainer_M" in line
    assert list(workspace.results.rglob("*")) == []


def test_members_of_another_spacing_train_together(workspace: Any) -> None:
    """Millimetres count: the second member's scans have other voxels of the same bodies."""
    import SimpleITK as sitk

    write_tiny_dataset(workspace.raw, "Dataset950_Tiny", num_cases=4, image_only=0)
    other = write_tiny_dataset(workspace.raw, "Dataset951_Fine", num_cases=4, image_only=0)
    for path in (other / "imagesTr").iterdir():
        image = sitk.ReadImage(str(path))
        finer = sitk.Expand(image, [1, 2, 3], sitk.sitkNearestNeighbor)
        sitk.WriteImage(finer, str(path))
    join_datasets([950, 951], 960, "Both")
    name = "Dataset960_Both"
    _prepare(workspace.preprocessed, name)
    trainer = _trainer("ColipriTrainer_CM", workspace.results, name, "all")
    trainer.run_training()
    store = trainer.data.store
    assert len(trainer.data.train_cases) == 4  # of each member two are held out
    for number in range(4):
        one, two = (store.shape(f"{member}_case_{number:03d}") for member in (950, 951))
        assert np.abs(np.subtract(one, two)).max() <= 1, (one, two)
    assert np.isfinite(trainer.progress.history[-1]["train"]["contrastive/loss"])


def test_members_of_other_channels_are_refused_before_anything_is_made(
    workspace: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Joined while they agreed, changed afterwards: no command goes on with half of it."""
    from colipri.run.plan_and_preprocess import main as plan_and_preprocess

    write_tiny_dataset(workspace.raw, "Dataset950_Tiny", num_cases=4, image_only=0)
    other = write_tiny_dataset(workspace.raw, "Dataset951_Two", num_cases=4, image_only=0)
    join_datasets([950, 951], 960, "Both")
    for path in list((other / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    description = json.loads((other / "dataset.json").read_text())
    description["channel_names"] = {"0": "CT", "1": "PET"}
    (other / "dataset.json").write_text(json.dumps(description))
    assert plan_and_preprocess(["-d", "960", "-np", "1"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Dataset951_Two" in line and "only images of the same modality" in line
    assert list(workspace.preprocessed.rglob("*.b2nd")) == []
