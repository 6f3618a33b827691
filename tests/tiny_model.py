"""A checkpoint of the example plan with fresh weights, and the tiny data set made ready for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import PLANS, install_example_plans, write_tiny_dataset

DATASET = "Dataset950_Tiny"
TEXTS = (
    "There is a pleural effusion.",
    "No pleural effusion. The heart is normal. Bones are normal.",
    "The heart has size 3. Small effusion on the left, no nodule.",
)


def write_checkpoint(target: Path, **changes: Any) -> Path:
    """Save a checkpoint as the trainer does; ``changes`` replace entries of it."""
    import torch

    from colipri.architectures.model import ColipriModel
    from colipri.checkpoints.checkpoint_file import save_checkpoint
    from colipri.plans.plans import Configuration
    from colipri.text.tokenizer import tokenizer_to_string, train_wordpiece

    plans = json.loads(PLANS.read_text())
    tokenizer = train_wordpiece(TEXTS * 3, 300)
    torch.manual_seed(0)
    configuration = Configuration.from_dict(plans["configurations"]["3d_lowres"])
    model = ColipriModel.from_plans(configuration, len(tokenizer))
    content = {
        "network_weights": model.state_dict(),
        "plans": plans,
        "configuration": "3d_lowres",
        "dataset_json": {"channel_names": {"0": "CT"}},
        "orientation": "SAR",
        "tokenizer": tokenizer_to_string(tokenizer),
        "trainer_name": "ColipriTrainer_C",
        "epoch": 3,
        "init_args": {"configuration": "3d_lowres", "fold": 0, "options": {}},
        **changes,
    }
    save_checkpoint(target, content)
    return target


def write_primus_s(target: Path) -> Path:
    """Save a checkpoint of Primus S with a linear stem, whose size other programs know."""
    import torch

    from colipri.architectures.model import ColipriModel
    from colipri.architectures.primus import PRESETS
    from colipri.plans.plans import Configuration

    plans = json.loads(PLANS.read_text())
    content = plans["configurations"]["3d_lowres"]
    content["architecture"]["arch_kwargs"].update(PRESETS["S"], stem="linear", stem_kwargs={})
    torch.manual_seed(0)
    model = ColipriModel.from_plans(Configuration.from_dict(content), 300)
    return write_checkpoint(target, plans=plans, network_weights=model.state_dict())


@dataclass(frozen=True)
class Prepared:
    """The data set's folders, its preprocessed cases, and a checkpoint for them."""

    raw: Path
    preprocessed: Path
    results: Path
    checkpoint: Path


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Made once for all tests that use it; they must not change it."""
    return _prepare(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture
def tiny(tiny_folders: Prepared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prepared]:
    """The same, with the three folders in the environment."""
    _set_environment(monkeypatch, tiny_folders)
    yield tiny_folders


@pytest.fixture(scope="session")
def mapped_folders(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """As tiny_folders, with label maps."""
    return _prepare(tmp_path_factory.getbasetemp() / "tiny_mapped", label_maps=True)


@pytest.fixture
def mapped(mapped_folders: Prepared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prepared]:
    """The same, with the three folders in the environment."""
    _set_environment(monkeypatch, mapped_folders)
    yield mapped_folders


@cache
def _prepare(root: Path, label_maps: bool = False) -> Prepared:
    from colipri.plans.plans import load_plans
    from colipri.preprocessing.preprocessor import preprocess_dataset

    folders = Prepared(
        root / "raw", root / "preprocessed", root / "results", root / "results" / "best.pth"
    )
    root.mkdir()
    for folder in (folders.raw, folders.preprocessed, folders.results):
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        _set_environment(patch, folders)
        write_tiny_dataset(folders.raw, label_maps=label_maps)
        install_example_plans(folders.preprocessed)
        preprocess_dataset(DATASET, load_plans(DATASET), ["3d_lowres"], num_processes=1)
    write_checkpoint(folders.checkpoint)
    return folders


def _set_environment(patch: pytest.MonkeyPatch, folders: Prepared) -> None:
    for name in ("raw", "preprocessed", "results"):
        patch.setenv(f"colipri_{name}", str(getattr(folders, name)))


def copy_scans(raw: Path, folder: Path, broken: str) -> Path:
    """Three scans of the tiny data set, and a file of the name ``broken`` that is no image."""
    folder.mkdir()
    for file in sorted((raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))[:3]:
        shutil.copy(file, folder)
    (folder / broken).write_bytes(b"no image")
    return folder
