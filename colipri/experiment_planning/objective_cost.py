"""What the objectives of a plan need beyond the two encoders: memory and arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from colipri.experiment_planning.flops import (
    BACKWARD,
    image_flops,
    num_grid_tokens,
    pool_flops,
    text_flops,
)
from colipri.objectives.base import Objective
from colipri.objectives.registry import (
    DEFAULT_LETTERS,
    build_objectives,
    parse_objectives,
    settings_of,
)

ENCODERS = "towers"  # as plans and tests spell it


def planned_objectives(configuration: Mapping[str, Any]) -> dict[str, Objective]:
    """The plan's objectives, and those of the default trainer.

    The plan may name fewer objectives than colipri_train trains by default; memory is kept for all.
    """
    planned = configuration["training"]["objectives"]
    names = dict.fromkeys([*planned, *parse_objectives(DEFAULT_LETTERS)])
    return build_objectives(settings_of(names, planned))


def objective_bytes(configuration: Mapping[str, Any], precision: str) -> dict[str, float]:
    """Bytes that each objective keeps per pair for the backward pass, where it keeps any.

    Args:
        configuration: of a plan.
        precision: one of colipri.experiment_planning.memory.PRECISIONS.
    """
    found = {
        name: objective.activation_bytes(configuration, precision)
        for name, objective in planned_objectives(configuration).items()
    }
    return {name: number for name, number in found.items() if number}


def objective_parameters(configuration: Mapping[str, Any]) -> int:
    """Parameters of the objectives' heads."""
    objectives = planned_objectives(configuration).values()
    return sum(objective.head_parameters(configuration) for objective in objectives)


def training_flops(
    configuration: Mapping[str, Any],
    num_tokens: float | None = None,
    objectives: Mapping[str, Objective] | Iterable[str] | None = None,
) -> dict[str, float]:
    """Training FLOPs of one sample that has a report, by what they are spent on.

    Forward and backward, recomputation not counted.

    Args:
        configuration: of the plan.
        num_tokens: image tokens that the encoder sees; None for the whole grid.
        objectives: what is trained; None for :func:`planned_objectives`.

    Returns:
        ``towers`` (image and text encoder, as far as an objective needs a report), and objectives
        that add to them, by name.
    """
    tokens = num_grid_tokens(configuration) if num_tokens is None else num_tokens
    if objectives is None:
        chosen: Mapping[str, Objective] = planned_objectives(configuration)
    elif isinstance(objectives, Mapping):
        chosen = objectives
    else:
        planned = configuration["training"]["objectives"]
        chosen = build_objectives(settings_of(objectives, planned))
    own = {name: objective.flops(configuration, tokens) for name, objective in chosen.items()}
    encoders = _encoder_flops(configuration, tokens, chosen.values())
    return {ENCODERS: encoders, **{name: flops for name, flops in own.items() if flops}}


def _encoder_flops(
    configuration: Mapping[str, Any], tokens: float, objectives: Iterable[Objective]
) -> float:
    kinds = [(objective.compares, objective.needs_reports) for objective in objectives]
    arch = configuration["architecture"]["arch_kwargs"]
    flops = 0.0
    if any(needs_reports for _, needs_reports in kinds):
        flops += image_flops(arch, configuration["patch_size"], tokens, training=True)
    if any(compares for compares, _ in kinds):
        flops += BACKWARD * pool_flops(tokens, configuration["embed_dim"], arch["embed_dim"])
        text = configuration["text_encoder"].get("arch_kwargs") or {}
        length = configuration["max_text_tokens"]
        frozen = "text_encoder" in configuration["training"].get("frozen", ())
        encoder = text_flops(text, length) + pool_flops(length, text.get("hidden_size", 768))
        flops += (1.0 if frozen else BACKWARD) * encoder
    return flops
