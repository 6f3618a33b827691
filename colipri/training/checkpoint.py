"""Checkpoints: everything that a resumed run, an evaluation or another machine needs, in one file.

Only tensors and plain data, so that ``torch.load(weights_only=True)`` reads them: a checkpoint from
a stranger cannot run code.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError

CHECKPOINT_VERSION = 1
ORIENTATION = "SAR"  # array axes grow towards superior, anterior, right: what all our code assumes
_REQUIRED = (
    "network_weights",
    "plans",
    "configuration",
    "orientation",
    "tokenizer",
    "dataset_json",
)
_RECORDED_PACKAGES = ("colipri", "torch", "transformers", "tokenizers", "nnunetv2", "numpy")


def save_checkpoint(target: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; a kill in the middle leaves the previous one whole."""
    import torch

    content = {
        "colipri_checkpoint_version": CHECKPOINT_VERSION,
        "package_versions": package_versions(),
        **content,
    }
    with atomic_path(target) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's zip writer hides the OSError of a full disk
            raise ColipriError(
                f"cannot write {target}: {str(error).splitlines()[0]}; check free disk space"
            ) from error


def load_checkpoint(source: Path | str) -> dict[str, Any]:
    """Read and check a colipri checkpoint (tensors on the CPU).

    Raises:
        ColipriError: missing, damaged, of another program or version, or trained with another
            orientation of the image axes.
    """
    import pickle

    import torch

    source = Path(source)
    if not source.is_file():
        raise ColipriError(f"there is no checkpoint {source}")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        raise ColipriError(
            f"{source} cannot be read as a checkpoint (damaged, or not one): "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(content, dict) or "colipri_checkpoint_version" not in content:
        raise ColipriError(f"{source} is not a colipri checkpoint (it has no version entry)")
    found = content["colipri_checkpoint_version"]
    if found != CHECKPOINT_VERSION:
        raise ColipriError(
            f"{source} has checkpoint version {found}, this colipri reads {CHECKPOINT_VERSION}"
        )
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise ColipriError(f"{source} is incomplete: no {', '.join(missing)}")
    if content["orientation"] != ORIENTATION:
        raise ColipriError(
            f"{source} was trained on images with axes {content['orientation']}, this colipri "
            f"feeds {ORIENTATION}; its features would be wrong"
        )
    return content


def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
