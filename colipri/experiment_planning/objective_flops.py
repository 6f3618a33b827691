"""What a sample costs in training, by objective: forward and backward, no recomputation.

A new objective adds one function and one line to the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

from colipri.experiment_planning.flops import (
    BACKWARD,
    image_flops,
    masked_decoder_flops,
    num_grid_tokens,
    pool_flops,
    report_decoder_flops,
    text_flops,
)
from colipri.experiment_planning.objective_memory import DECODER_DEPTH, planned_objectives

MASK_RATIO = 0.75  # the objective's default (colipri.objectives.registry)
OPPOSITE_PAIRS = 8  # likewise
SENTENCE_TOKENS = 16  # of an opposite sentence; reports' sentences have about a dozen words
TOWERS = "towers"

ObjectiveFlops = Callable[[dict[str, Any], float], float]


def training_flops(
    configuration: dict[str, Any],
    num_tokens: float | None = None,
    objectives: Iterable[str] | None = None,
) -> dict[str, float]:
    """FLOPs of one sample that has a report, by what they are spent on.

    Args:
        configuration: of the plan.
        num_tokens: image tokens that the encoder sees; None for the whole grid.
        objectives: what is trained, by name; None for what a plan reckons with
            (:func:`colipri.experiment_planning.objective_memory.planned_objectives`).

    Returns:
        ``towers`` (image and text encoder, as far as an objective needs a report), and objectives
        that add to them, by name.
    """
    tokens = num_grid_tokens(configuration) if num_tokens is None else num_tokens
    names = planned_objectives(configuration) if objectives is None else list(objectives)
    found = {TOWERS: _towers(configuration, tokens, names)}
    found |= {name: OWN[name](configuration, tokens) for name in names if name in OWN}
    return found


def _towers(configuration: dict[str, Any], tokens: float, objectives: list[str]) -> float:
    compares = any(name in ("contrastive", "opposite_sentence") for name in objectives)
    flops = 0.0
    if compares or "report_generation" in objectives:
        flops += _image(configuration, tokens)
    if compares:
        arch = configuration["architecture"]["arch_kwargs"]
        flops += BACKWARD * pool_flops(tokens, configuration["embed_dim"], arch["embed_dim"])
        flops += _text(configuration, configuration["max_text_tokens"])
    return flops


def _opposite_sentences(configuration: dict[str, Any], tokens: float) -> float:
    """At most: sentences that several pairs of a batch share are encoded once."""
    pairs = _option(configuration, "opposite_sentence", "pairs", OPPOSITE_PAIRS)
    return 2 * pairs * _text(configuration, SENTENCE_TOKENS)


def _report_generation(configuration: dict[str, Any], tokens: float) -> float:
    name = "report_generation"
    length = configuration["max_text_tokens"]
    return BACKWARD * report_decoder_flops(
        _option(configuration, name, "max_tokens", length) or length,
        tokens,
        (configuration["text_encoder"].get("arch_kwargs") or {}).get("hidden_size", 768),
        _option(configuration, name, "decoder_depth", DECODER_DEPTH[name]),
        configuration["architecture"]["arch_kwargs"]["embed_dim"],
        configuration["text_encoder"]["vocabulary_size"],
    )


def _masked_image_modelling(configuration: dict[str, Any], tokens: float) -> float:
    name = "masked_image_modelling"
    arch = configuration["architecture"]["arch_kwargs"]
    ratio = _option(configuration, name, "mask_ratio", MASK_RATIO)
    return _image(configuration, (1 - ratio) * tokens) + BACKWARD * masked_decoder_flops(
        (1 - ratio) * tokens,
        ratio * tokens,
        arch["embed_dim"],
        arch["input_channels"] * prod(configuration["token_patch_size"]),
        arch["embed_dim"],
        _option(configuration, name, "decoder_depth", DECODER_DEPTH[name]),
    )


OWN: dict[str, ObjectiveFlops] = {
    "opposite_sentence": _opposite_sentences,
    "report_generation": _report_generation,
    "masked_image_modelling": _masked_image_modelling,
}


def _image(configuration: dict[str, Any], tokens: float) -> float:
    arch = configuration["architecture"]["arch_kwargs"]
    return image_flops(arch, configuration["patch_size"], tokens, training=True)


def _text(configuration: dict[str, Any], tokens: float) -> float:
    arch = configuration["text_encoder"].get("arch_kwargs") or {}
    dim = arch.get("hidden_size", 768)
    frozen = "text_encoder" in configuration["training"].get("frozen", ())
    return (1.0 if frozen else BACKWARD) * (text_flops(arch, tokens) + pool_flops(tokens, dim))


def _option(configuration: dict[str, Any], objective: str, name: str, default: Any) -> Any:
    return configuration["training"]["objectives"].get(objective, {}).get(name, default)
