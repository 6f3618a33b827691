"""A head in a file: its numbers, what it reads, its thresholds, calibration and metrics.

A .safetensors file (no code runs when it is read), beside the checkpoint of its encoder. It names
the encoder's weights by their digest, so that it is never used on the features of another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.evaluation.calibration import Calibration
from colipri.probing.heads import build_head
from colipri.probing.judging import Decisions

HEAD_VERSION = 1
ENDING = ".safetensors"
_METADATA = "colipri_head"
_ENCODER = "encoder."  # tensors that replace those of the checkpoint (fine-tuning)


@dataclass(frozen=True)
class SavedHead:
    """A head and everything that its use needs.

    Attributes:
        method: knn, logistic, probes, attentive or finetune.
        head: Scores scans.
        findings: F names.
        decisions: Thresholds and calibration.
        key: What the features depend on (``FeatureKey.to_dict``).
        spacing: mm, if it is not the plan's; else None.
        checkpoint: Of the encoder, as an absolute path when it was saved.
        about: Data set, labels, metrics: for people and for pages.
        encoder_weights: Tensors that replace those of the checkpoint (fine-tuning).
    """

    method: str
    head: Any
    findings: tuple[str, ...]
    decisions: Decisions
    key: Mapping[str, Any]
    checkpoint: str
    spacing: tuple[float, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    encoder_weights: Mapping[str, Tensor] = field(default_factory=dict)


def save_head(path: Path, saved: SavedHead) -> None:
    """Write a head atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in saved.head.state_dict().items()}
    for name, tensor in saved.encoder_weights.items():
        tensors[_ENCODER + name] = tensor.detach().cpu().contiguous()
    content = {
        "version": HEAD_VERSION,
        "method": saved.method,
        "kind": saved.head.kind,
        "settings": saved.head.settings(),
        "findings": list(saved.findings),
        "thresholds": dict(saved.decisions.thresholds),
        "thresholds_source": saved.decisions.source,
        "calibration": {name: c.to_dict() for name, c in saved.decisions.calibration.items()},
        "key": dict(saved.key),
        "spacing": None if saved.spacing is None else list(saved.spacing),
        "checkpoint": saved.checkpoint,
        "about": dict(saved.about),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_METADATA: json.dumps(content, allow_nan=False)})


def load_head(path: Path | str) -> SavedHead:
    """Read a head.

    Raises:
        ColipriError: missing, damaged, not a head, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise ColipriError(f"there is no head {path}; colipri_probe writes heads")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ColipriError(
            f"{path} cannot be read as a head ({error}); give a .safetensors file of colipri_probe"
        ) from error
    if _METADATA not in metadata:
        raise ColipriError(f"{path} is not a head; give the .safetensors file of colipri_probe")
    try:
        content = json.loads(metadata[_METADATA])
        if content["version"] != HEAD_VERSION:
            raise ColipriError(
                f"{path} has head version {content['version']}, this colipri reads {HEAD_VERSION}"
            )
        return _saved_head(content, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ColipriError(
            f"{path} is incomplete as a head ({type(error).__name__}: {error}); run colipri_probe "
            "again"
        ) from error


def _saved_head(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SavedHead:
    own = {n: t for n, t in tensors.items() if not n.startswith(_ENCODER)}
    spacing = content["spacing"]
    return SavedHead(
        content["method"],
        build_head(content["kind"], content["settings"], own),
        tuple(content["findings"]),
        Decisions(
            content["thresholds"],
            {name: Calibration.from_dict(c) for name, c in content["calibration"].items()},
            content["thresholds_source"],
        ),
        content["key"],
        content["checkpoint"],
        None if spacing is None else tuple(float(step) for step in spacing),
        content["about"],
        {n[len(_ENCODER) :]: t for n, t in tensors.items() if n.startswith(_ENCODER)},
    )


def checkpoint_of(path: Path, saved: SavedHead, given: str | None = None) -> Path:
    """Return the checkpoint of a head's encoder: the given one, one beside the head or its folder,
    or the recorded one.

    Args:
        path: Of the head.
        saved: Its content.
        given: A path that overrides the search.

    Raises:
        ColipriError: none of them exists.
    """
    recorded = Path(saved.checkpoint)
    folder = path.absolute().parent
    candidates = [folder / recorded.name, folder.parent / recorded.name, recorded]
    if given is not None:
        candidates = [Path(given)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ColipriError(
        f"the encoder of {path} is not at {' or '.join(str(c) for c in candidates)}; name its "
        "checkpoint with --checkpoint"
    )
