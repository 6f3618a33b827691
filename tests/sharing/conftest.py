"""An exported model for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import write_checkpoint

from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.transfer.export import export_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model."""
    return write_checkpoint(tmp_path_factory.mktemp("sharing") / "checkpoint_best.pth")


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> Path:
    """The folder of colipri_export; tests must not change it."""
    folder = checkpoint.parent / "exported"
    export_model(load_checkpoint(checkpoint), folder, checkpoint.name)
    return folder
