"""A running viewer with the tiny model, and the fixtures of tests/tiny_model.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_dataset import _volume
from tiny_model import Prepared, tiny, tiny_folders
from viewer.running import Running, start

__all__ = ["tiny", "tiny_folders"]

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chest-like scans; the name of one is markup."""
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate((HOSTILE, "plain")):
        image = sitk.GetImageFromArray(_volume(np.random.default_rng(number), bool(number)))
        image.SetSpacing((8.0, 8.0, 8.0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def viewer(tiny_folders: Prepared, scans: Path) -> Iterator[Running]:
    """A viewer of both scans; uploads of 1 MB at most."""
    with start("-m", tiny_folders.checkpoint, "-i", scans, "--max_upload", 1) as running:
        yield running
