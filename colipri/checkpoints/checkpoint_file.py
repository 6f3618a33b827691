"""The checkpoint file: everything that a resumed run, an evaluation or another machine needs.

It holds tensors and plain data only, so that ``torch.load(weights_only=True)`` reads it: a
checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import pickle
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.common.sharded_tensors import load_state
from colipri.imageio.image import DEFAULT_ORIENTATION

CHECKPOINT_VERSION = 1
# The model without the heads that objectives add: names of weights start with one of these.
CORE_PREFIXES = (
    "image_encoder.",
    "image_transformer.",
    "image_projector.",
    "image_pooler.",
    "text_encoder.",
    "logit_scale",
    "logit_bias",
)
_REQUIRED = (
    "network_weights",
    "plans",
    "configuration",
    "orientation",
    "tokenizer",
    "dataset_json",
)
_RECORDED_PACKAGES = ("colipri", "torch", "transformers", "tokenizers", "nnunetv2", "numpy")
_SHOWN = 5  # names per kind of problem; the count says how many there are


def save_checkpoint(target: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; if killed halfway, the previous file stays intact."""
    save_tensors(
        target,
        {
            "colipri_checkpoint_version": CHECKPOINT_VERSION,
            "package_versions": package_versions(),
            **content,
        },
    )


def save_tensors(target: Path, content: Mapping[str, Any]) -> None:
    """Save with ``torch.save``, atomically and with a clear error.

    Raises:
        ColipriError: the disk is full or the folder is not writable.
    """
    with atomic_path(target) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # torch's zip writer hides the OSError of a full disk
            raise ColipriError(
                f"cannot write {target}: {str(error).splitlines()[0]}; check free disk space"
            ) from error


def load_checkpoint(source: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Read and check a colipri checkpoint (tensors on the CPU).

    Args:
        source: the file.
        mapped: map the file into memory instead of reading it: only what is used is read.

    Raises:
        ColipriError: missing, damaged, from another program or version, or trained with another
            orientation of the image axes.
    """
    source = Path(source)
    if not source.is_file():
        raise ColipriError(f"there is no checkpoint {source}")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        raise ColipriError(
            f"{source} cannot be read as a checkpoint (damaged, or not one): "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(content, dict) or "colipri_checkpoint_version" not in content:
        raise ColipriError(f"{source} is not a colipri checkpoint (it has no version entry)")
    require_complete(content, source)
    return content


def require_complete(content: Mapping[str, Any], source: Path) -> None:
    """Raise ColipriError unless the checkpoint can be used: version, entries, orientation."""
    require_version(content, source)
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise ColipriError(f"{source} is incomplete: no {', '.join(missing)}")
    require_orientation(content["orientation"], source)


def require_version(content: Mapping[str, Any], source: Path) -> None:
    """Raise ColipriError unless this version of colipri reads the checkpoint."""
    found = content["colipri_checkpoint_version"]
    if found != CHECKPOINT_VERSION:
        raise ColipriError(
            f"{source} has checkpoint version {found}, this colipri reads {CHECKPOINT_VERSION}"
        )


def require_orientation(orientation: Any, source: Path) -> None:
    """Raise ColipriError unless the weights were trained on images with our axes."""
    if orientation != DEFAULT_ORIENTATION:
        raise ColipriError(
            f"{source} was trained on images with axes {orientation}, this colipri feeds "
            f"{DEFAULT_ORIENTATION}; its features would be wrong"
        )


def core_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the two encoders and their common space, without the heads of objectives."""
    return {name: tensor for name, tensor in weights.items() if name.startswith(CORE_PREFIXES)}


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers of a run."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def load_state_dict_reported(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str = "the weights",
    may_be_missing: Sequence[str] = (),
) -> list[str]:
    """Load weights strictly, or change nothing and report all problems in one error.

    Args:
        module: takes the weights; on the meta device nothing is loaded and all else is the same. Of
            a sharded module every process takes its rows.
        state: parameter name -> tensor.
        source: what the weights are, for the message (a file name).
        may_be_missing: prefixes of names that the weights need not hold (for example a decoder).

    Returns:
        Names that were allowed to be missing and were; they keep their initialization.

    Raises:
        ColipriError: names are missing or unknown, or shapes differ.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state]
    excused = [name for name in missing if name.startswith(tuple(may_be_missing))]
    problems = {
        "missing": [name for name in missing if name not in excused],
        "unknown": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} ({_shape(state[name])} instead of {_shape(tensor)})"
            for name, tensor in wanted.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        lists = "; ".join(_listed(kind, names) for kind, names in problems.items() if names)
        raise ColipriError(f"{source} do not fit {type(module).__name__}: {lists}")
    if not any(tensor.is_meta for tensor in wanted.values()):
        load_state(module, state, strict=not excused)
    return excused


def _listed(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
