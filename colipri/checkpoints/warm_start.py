"""``-pretrained_weights``: start from weights that another run, or another project, has trained.

The image encoder must fit and is loaded whole; whatever else of the file fits (projector, pooling,
text encoder, decoders) is loaded part by part. What was loaded, what was not, and why, is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.model import ColipriModel
from colipri.checkpoints.checkpoint_file import load_state_dict_reported
from colipri.checkpoints.encoder_fitting import fit_encoder
from colipri.checkpoints.licences import NOT_STATED, Licence
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.common.display import show_sizes
from colipri.common.errors import ColipriError
from colipri.plans.plans import Configuration, Plans
from colipri.text.tokenizer import tokenizer_to_string

_TEXT_PARTS = ("text_encoder", "report_decoder")  # weights of one vocabulary
_TEMPERATURE = ("logit_scale", "logit_bias")


@dataclass
class WarmStart:
    """What became of a file of weights.

    Attributes:
        source: file and kind.
        loaded: parts of the model that now have its weights.
        left: parts that keep their own start, and why.
        notes: what was changed on the way.
        licences: of the weights, for whoever shares the model.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    licences: list[dict[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return lines for the log."""
        return [
            f"Pretrained weights from {self.source}",
            f"  loaded: {', '.join(self.loaded)}",
            *(f"  not loaded: {part} ({why})" for part, why in self.left.items()),
            *(f"  note: {note}" for note in self.notes),
        ]


def warm_start(
    model: ColipriModel,
    path: Path,
    intensities: tuple[float, float] | None = None,
    spacing: tuple[float, ...] | None = None,
    tokenizer: str | None = None,
    text_encoder: str | None = None,
) -> WarmStart:
    """Load what fits of a file into the model.

    Args:
        model: changed in place, or not at all if the image encoder does not fit.
        path: see colipri.checkpoints.weight_reader.
        intensities: mean and standard deviation in HU that this run normalizes its CT with.
        spacing: mm of this run.
        tokenizer: of this run, as checkpoints store it.
        text_encoder: name of this run's pretrained text encoder, if it has one.

    Raises:
        ColipriError: unreadable, unknown, or an image encoder of another make; one line says which.
    """
    file = read_weight_file(path)
    fitted = fit_encoder(model.image_encoder, file, path, intensities)
    load_state_dict_reported(model.image_encoder, fitted.state, str(path))
    result = WarmStart(f"{path} ({file.kind})", [], fitted.left, [*file.notes, *fitted.notes])
    result.loaded.append("image encoder")
    result.licences = file.licences or [Licence(f"weights of {path}", NOT_STATED).to_dict()]
    if spacing and file.spacing and not _close(spacing, file.spacing):
        result.notes.append(f"it was trained at {_mm(file.spacing)}, this run is at {_mm(spacing)}")
    same_words = (tokenizer is not None and tokenizer == file.tokenizer) or (
        file.tokenizer is None and text_encoder is not None and text_encoder == file.text_encoder
    )
    for part, module in model.named_children():
        if part != "image_encoder":
            _load_part(part, module, file.state, same_words, result)
    _load_temperature(model, file.state, result)
    return result


def _load_part(
    part: str,
    module: torch.nn.Module,
    weights: Mapping[str, Tensor],
    same_words: bool,
    result: WarmStart,
) -> None:
    name = part.replace("_", " ")
    own = {n[len(part) + 1 :]: t for n, t in weights.items() if n.startswith(part + ".")}
    if not own:
        result.left[name] = "not in the file"
    elif part in _TEXT_PARTS and not same_words:
        result.left[name] = "its vocabulary is another one than this run's"
    else:
        try:
            load_state_dict_reported(module, own)
            result.loaded.append(name)
        except ColipriError as error:
            result.left[name] = str(error)


def _load_temperature(
    model: ColipriModel, weights: Mapping[str, Tensor], result: WarmStart
) -> None:
    """Temperature and bias belong to an alignment: they come only with both of its sides."""
    if not all(name in weights for name in _TEMPERATURE):
        return
    aligned = {"image projector", "image pooler", "text encoder"} <= set(result.loaded)
    if not aligned:
        result.left["temperature"] = "the two towers are not both loaded"
    elif bool(weights["logit_bias"]) != bool(model.logit_bias.detach()):
        result.left["temperature"] = "of another form of the contrastive loss"
    else:
        model.load_state_dict({name: weights[name] for name in _TEMPERATURE}, strict=False)
        result.loaded.append("temperature")


def _close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 0.01 * b for a, b in zip(one, other, strict=True))


def _mm(spacing: tuple[float, ...]) -> str:
    return show_sizes(spacing) + " mm"


def start_of_run(plans: Plans, configuration: Configuration, tokenizer: Any) -> dict[str, Any]:
    """Return what :func:`warm_start` needs to know of a run, from its plan and tokenizer.

    Args:
        plans: Of the run.
        configuration: Of the plans.
        tokenizer: Of the run.
    """
    intensities = None
    if configuration.storage_dtype == "int16":  # stored in HU
        numbers = plans.intensities(0)
        intensities = (numbers.mean, max(numbers.std, 1e-8))
    return {
        "intensities": intensities,
        "spacing": tuple(configuration.spacing),
        "tokenizer": tokenizer_to_string(tokenizer),
        "text_encoder": configuration.text_encoder.name_or_path,
    }
