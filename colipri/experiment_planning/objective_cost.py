"""What the objectives of a plan need beyond the two encoders: memory and arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from colipri.cost.flops import (
    BACKWARD,
    image_flops,
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
from colipri.plans.plans import Configuration

ENCODERS = "towers"  # as plans and tests spell it


def planned_objectives(configuration: Configuration) -> dict[str, Objective]:
    """The plan's objectives, and those of the default trainer.

    The plan may name fewer objectives than colipri_train trains by default; memory is kept for all.
    """
    planned = configuration.training.objectives
    names = dict.fromkeys([*planned, *parse_objectives(DEFAULT_LETTERS)])
    return build_objectives(settings_of(names, planned))


def objective_bytes(configuration: Configuration, precision: str) -> dict[str, float]:
    """Bytes that each objective keeps per pair for the backward pass, where it keeps any.

    Args:
        configuration: of a plan.
        precision: one of colipri.cost.memory.PRECISIONS.
    """
    found = {
        name: objective.activation_bytes(configuration, precision)
        for name, objective in planned_objectives(configuration).items()
    }
    return {name: number for name, number in found.items() if number}


def objective_parameters(configuration: Configuration) -> int:
    """Parameters of the objectives' heads."""
    objectives = planned_objectives(configuration).values()
    return sum(objective.head_parameters(configuration) for objective in objectives)


def training_flops(
    configuration: Configuration,
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
    tokens = configuration.num_tokens if num_tokens is None else num_tokens
    if objectives is None:
        chosen: Mapping[str, Objective] = planned_objectives(configuration)
    elif isinstance(objectives, Mapping):
        chosen = objectives
    else:
        planned = configuration.training.objectives
        chosen = build_objectives(settings_of(objectives, planned))
    own = {name: objective.flops(configuration, tokens) for name, objective in chosen.items()}
    encoders = _encoder_flops(configuration, tokens, chosen.values())
    return {ENCODERS: encoders, **{name: flops for name, flops in own.items() if flops}}


def _encoder_flops(
    configuration: Configuration, tokens: float, objectives: Iterable[Objective]
) -> float:
    kinds = [(objective.compares, objective.needs_reports) for objective in objectives]
    flops = 0.0
    if any(needs_reports for _, needs_reports in kinds):
        patch = configuration.patch_size
        flops += image_flops(configuration.encoder, patch, tokens, training=True)
    if any(compares for compares, _ in kinds):
        width = configuration.encoder.embed_dim
        flops += BACKWARD * pool_flops(tokens, configuration.embed_dim, width)
        bert, length = configuration.text_encoder.bert, configuration.max_text_tokens
        frozen = "text_encoder" in configuration.training.frozen
        text = text_flops(bert, length) + pool_flops(length, bert.hidden_size)
        flops += (1.0 if frozen else BACKWARD) * text
    return flops
