"""What is trained, and how fast: frozen parts, AdamW's parameter groups, and the schedule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colipri.architectures.model import ColipriModel, is_head
from colipri.architectures.parameter_groups import group_parameters
from colipri.common.errors import ColipriError
from colipri.objectives.base import Objective

# Towers with layers: where the number of a layer stands, and what lies before the first one.
_LAYERS = {
    "image_encoder": re.compile(r"^image_encoder\.eva\.blocks\.(\d+)\."),
    "text_encoder": re.compile(r"^text_encoder\.encoder\.encoder\.layer\.(\d+)\."),
}
_BEFORE = {
    "image_encoder": (
        "image_encoder.down_projection.",
        "image_encoder.register_tokens",
        "image_encoder.eva.pos_embed",
    ),
    "text_encoder": ("text_encoder.encoder.embeddings.",),
}


def freeze_parts(model: ColipriModel, parts: Sequence[str]) -> None:
    """Freeze parts of the model: no gradients, and no dropout either.

    Args:
        model: changed in place.
        parts: names of modules, for example "text_encoder" or "image_encoder.down_projection"
            (``training.frozen`` of a plan).

    Raises:
        ColipriError: a name that the model does not have.
    """
    for part in parts:
        _require_part(model, part, "training.frozen")
        for parameter in model.get_submodule(part).parameters():
            parameter.requires_grad_(False)
    model.frozen_parts = tuple(parts)


def learning_rate_factors(model: nn.Module, settings: Mapping[str, Any]) -> Callable[[str], float]:
    """Which share of the scheduled learning rate a parameter gets, by its name.

    Three entries of a plan's ``training`` multiply: ``text_learning_rate_factor`` (a number),
    ``learning_rate_factors`` (part -> number, for example {"image_encoder": 0.1}), and
    ``layer_decay`` (a number for the image encoder, or tower -> number): the last layer gets the
    decay once, the one before twice, and so on (arXiv 2106.08254), because early layers of a
    pretrained tower are the most general ones.

    Raises:
        ColipriError: an unknown part or tower, or a number that is not positive.
    """
    parts = {"text_encoder": settings.get("text_learning_rate_factor", 1.0)}
    for part, factor in settings.get("learning_rate_factors", {}).items():
        _require_part(model, part, "training.learning_rate_factors")
        parts[part] = factor * parts.get(part, 1.0)
    decay = settings.get("layer_decay") or {}
    decays = decay if isinstance(decay, Mapping) else {"image_encoder": decay}
    for tower, number in decays.items():
        if tower not in _LAYERS:
            raise ColipriError(f"training.layer_decay: no tower {tower}; {', '.join(_LAYERS)}")
        if not 0 < number <= 1:
            raise ColipriError(f"training.layer_decay must be in (0, 1], not {number}")
    for part, factor in parts.items():
        if not factor > 0:
            raise ColipriError(
                f"the learning rate factor of {part} is {factor}; it must be positive (to freeze a "
                "part, name it in training.frozen)"
            )
    names = [name for name, _ in model.named_parameters()]
    depths = {tower: _depth(names, pattern) for tower, pattern in _LAYERS.items()}

    def factor_of(name: str) -> float:
        factor = 1.0
        for part, share in parts.items():
            if name.startswith(part + "."):
                factor *= share
        for tower, number in decays.items():
            factor *= number ** _steps_below_the_top(name, tower, depths[tower])
        return factor

    return factor_of


def _steps_below_the_top(name: str, tower: str, depth: int) -> int:
    found = _LAYERS[tower].match(name)
    if found:
        return depth - int(found.group(1))
    return depth + 1 if name.startswith(_BEFORE[tower]) else 0


def _depth(names: Sequence[str], pattern: re.Pattern[str]) -> int:
    return 1 + max((int(m.group(1)) for name in names if (m := pattern.match(name))), default=-1)


def _require_part(model: nn.Module, part: str, entry: str) -> None:
    try:
        model.get_submodule(part)
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise ColipriError(f"{entry}: the model has no part '{part}'; it has {known}") from None


def parameter_groups(
    model: nn.Module, weight_decay: float, factor_of: Callable[[str], float] = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Split the trainable parameters by share of the learning rate and by weight decay.

    Each group carries ``lr_factor``, with which the trainer multiplies the scheduled rate. The
    order is fixed by the names, so that a saved optimiser state always fits.
    """
    groups = group_parameters(model, lambda name: -factor_of(name))  # the full rate comes first
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_factor": -factor,
        }
        for factor, decayed, parameters in groups
    ]


def build_optimizer(model: nn.Module, settings: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW from the plan's ``training`` numbers (learning_rate, weight_decay, betas, ...).

    Raises:
        ColipriError: everything is frozen, or a factor is wrong.
    """
    factor_of = learning_rate_factors(model, settings)
    groups = parameter_groups(model, settings["weight_decay"], factor_of)
    if not groups:
        raise ColipriError("nothing is left to train: training.frozen names every part")
    return torch.optim.AdamW(
        groups,
        lr=settings["learning_rate"],
        betas=(settings["betas"][0], settings["betas"][1]),
        fused=True,  # one kernel per group; also the fastest form on the CPU
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def learning_rate(
    iteration: int,
    peak: float,
    warmup_iterations: int,
    total_iterations: int,
    final_fraction: float = 0.01,
) -> float:
    """Linear warm-up to ``peak``, then a half cosine down to ``final_fraction * peak``.

    A pure function of the iteration: nothing to save, nothing to restore.

    Warm-up keeps AdamW's second moments from being dominated by the first, untypical gradients of a
    transformer; the cosine is the schedule that CLIP-like training is usually reported with.

    Args:
        iteration: 0-based optimiser step that is about to be made.
        peak: highest learning rate.
        warmup_iterations: steps until the peak is reached.
        total_iterations: steps of the whole run.
        final_fraction: where the cosine ends, as a fraction of the peak.
    """
    if iteration < warmup_iterations:
        return peak * (iteration + 1) / warmup_iterations
    span = max(1, total_iterations - warmup_iterations)
    position = min(1.0, (iteration - warmup_iterations) / span)
    cosine = 0.5 * (1.0 + math.cos(math.pi * position))
    return peak * (final_fraction + (1.0 - final_fraction) * cosine)


def freeze_unreached(model: ColipriModel, objectives: Mapping[str, Objective]) -> list[str]:
    """Freeze what no objective of the run reaches: nothing waits for its gradients.

    Returns:
        The names of the frozen parameters.
    """
    reached = {part for objective in objectives.values() for part in objective.reaches()}
    frozen = []
    for name, parameter in model.named_parameters():
        if not is_head(name) and name.partition(".")[0] not in reached:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen
