"""A trained report writer in a folder: settings, projector, LoRA, and the head of its hints.

<folder>/
    writer.json             settings, and which encoder and language model it belongs to
    projector.safetensors   image tokens -> words
    lora.safetensors        what stage 2 added to the language model (absent after stage 1)
    head.safetensors        the head whose findings are given as a hint (with --guide)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from colipri.common.atomic import atomic_path, atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.writers.finding_head import FindingHead

FORMAT = 1
WRITER_FILE = "writer.json"
_PROJECTOR, _LORA, _HEAD = "projector.safetensors", "lora.safetensors", "head.safetensors"


@dataclass(frozen=True)
class WriterSettings:
    """What a writer is made of.

    Attributes:
        encoder: Path of the encoder's checkpoint.
        encoder_digest: Of its image weights; another encoder is refused.
        language_model: Folder, .gguf file or name.
        image_tokens: Per scan, a cube number.
        token_width: Of the encoder.
        lora_rank: 0: none.
        findings: Of the hint; empty without --guide.
        max_text_tokens: Longest report.
        dataset: That it was trained on.
    """

    encoder: str
    encoder_digest: str
    language_model: str
    image_tokens: int
    token_width: int
    lora_rank: int
    findings: tuple[str, ...]
    max_text_tokens: int
    dataset: str


@dataclass(frozen=True)
class SavedWriter:
    """A folder of colipri_train_writer, read."""

    folder: Path
    settings: WriterSettings
    projector: dict[str, Tensor]
    lora: dict[str, Tensor]
    head: FindingHead | None
    report: Mapping[str, Any]


def save_writer(
    folder: Path,
    settings: WriterSettings,
    projector: Mapping[str, Tensor],
    lora: Mapping[str, Tensor],
    head: FindingHead | None,
    report: Mapping[str, Any],
) -> None:
    """Write a folder; writer.json comes last, so that a folder without it is unfinished.

    Args:
        folder: To write.
        settings: What it is made of.
        projector: Weights.
        lora: Weights; empty: none.
        head: Of the hints, or None.
        report: Losses and the like, for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_tensors(folder / _PROJECTOR, projector)
    if lora:
        _save_tensors(folder / _LORA, lora)
    if head is not None:
        arrays = {
            "mean": head.mean,
            "scale": head.scale,
            "weights": head.weights,
            "biases": head.biases,
            "thresholds": head.thresholds,
        }
        _save_tensors(folder / _HEAD, {n: torch.from_numpy(a.copy()) for n, a in arrays.items()})
    untrained = [] if head is None else list(head.untrained)
    content = {
        "format": FORMAT,
        "settings": asdict(settings),
        "has_lora": bool(lora),
        "untrained_findings": untrained,
        "training": dict(report),
    }
    atomic_write_json(folder / WRITER_FILE, content)


def read_writer(folder: Path) -> SavedWriter:
    """Read a folder.

    Raises:
        ColipriError: not a writer, unfinished, or of another version.
    """
    path = folder / WRITER_FILE
    if not path.is_file():
        raise ColipriError(
            f"{folder} holds no trained writer ({WRITER_FILE} is missing); colipri_train_writer "
            "makes one, or give a checkpoint file as -m"
        )
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ColipriError(f"{path} is of another version of colipri")
    known = {field.name for field in fields(WriterSettings)}
    settings = content.get("settings")
    if not isinstance(settings, dict) or set(settings) != known:
        raise ColipriError(f"{path} does not hold the settings of a writer")
    settings["findings"] = tuple(settings["findings"])
    made = WriterSettings(**settings)
    lora = _load_tensors(folder / _LORA) if content["has_lora"] else {}
    head = None
    if made.findings:
        head = _head(folder / _HEAD, made.findings, tuple(content["untrained_findings"]))
    return SavedWriter(
        folder, made, _load_tensors(folder / _PROJECTOR), lora, head, content["training"]
    )


def _head(path: Path, names: tuple[str, ...], untrained: tuple[str, ...]) -> FindingHead:
    arrays = {
        name: tensor.numpy().astype(np.float64) for name, tensor in _load_tensors(path).items()
    }
    return FindingHead(
        names,
        arrays["mean"],
        arrays["scale"],
        arrays["weights"],
        arrays["biases"],
        arrays["thresholds"],
        untrained,
    )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, ValueError) as error:
        raise ColipriError(f"{path} cannot be read: {error}") from error
