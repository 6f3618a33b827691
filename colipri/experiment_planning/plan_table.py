"""A plan as a table that a person reads: what was chosen, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

WIDTH = 110
_NAME, _VALUE = 26, 26

# Rows in the order of the decisions: entry of "because" -> how its value is shown.
_ROWS = {
    "spacing": lambda c: _by(c["spacing"]) + " mm",
    "patch_size": lambda c: _by(c["patch_size"]) + " voxels",
    "normalization_schemes": lambda c: ", ".join(c["normalization_schemes"]),
    "architecture": lambda c: _architecture(c["architecture"]["arch_kwargs"]),
    "text_encoder": lambda c: c["text_encoder"]["name_or_path"] or "from scratch",
    "vocabulary_size": lambda c: f"{c['text_encoder']['vocabulary_size']:,}",
    "max_text_tokens": lambda c: f"{c['max_text_tokens']} tokens",
    "embed_dim": lambda c: str(c["embed_dim"]),
    "objectives": lambda c: ", ".join(c["training"]["objectives"]),
    "batch_size": lambda c: f"{c['batch_size']} studies",
    "activation_checkpointing": lambda c: c["activation_checkpointing"],
    "micro_batch_size": lambda c: f"{c['micro_batch_size']} pairs",
    "num_epochs": lambda c: _schedule(c["training"]),
    "learning_rate": lambda c: f"{c['training']['learning_rate']:g}",
    "weight_decay": lambda c: f"{c['training']['weight_decay']:g}",
}


def format_plan(plans: Mapping[str, Any]) -> str:
    """All configurations of a plan, with reasons, memory, arithmetic and hours."""
    parts = [
        f"Plan {plans['plans_name']} of {plans['dataset_name']} by {plans['planner']}, for "
        f"{plans['gpu_memory_target_in_gb']:g} GB"
    ]
    for name, configuration in plans["configurations"].items():
        parts.append(f"\n{name}\n{'-' * len(name)}")
        parts += _rows(configuration)
        parts += _costs(configuration)
    return "\n".join(parts)


def _rows(configuration: Mapping[str, Any]) -> list[str]:
    because = configuration["because"]
    shown = [entry for entry in _ROWS if entry in because]
    lines = [_row(entry, _ROWS[entry](configuration), because[entry]) for entry in shown]
    others = [entry for entry in because if entry not in _ROWS]  # of planners that plan more
    lines += [_row(entry, _short(configuration.get(entry)), because[entry]) for entry in others]
    return lines


def _row(name: str, value: str, reason: str) -> str:
    text = textwrap.wrap(reason, WIDTH - _NAME - _VALUE) or [""]
    values = textwrap.wrap(value, _VALUE - 2) or [""]
    count = max(len(text), len(values))
    text += [""] * (count - len(text))
    values += [""] * (count - len(values))
    names = [name] + [""] * (count - 1)
    rows = zip(names, values, text, strict=True)
    return "\n".join(f"{a:<{_NAME}}{b:<{_VALUE}}{c}".rstrip() for a, b, c in rows)


def _costs(configuration: Mapping[str, Any]) -> list[str]:
    memory, compute = configuration["memory_estimate"], configuration["compute_estimate"]
    hours = ", ".join(f"{name} {_hours(value)}" for name, value in compute["hours"].items())
    memory_reason = (
        f"weights and optimiser {memory['parameters_in_gb']:.1f}, each pair "
        f"{memory['per_pair_in_gb']:.2f}, context and workspaces "
        f"{memory['overhead_in_gb']:.2f} ({memory['precision']})"
    )
    compute_reason = (
        f"{compute['kept_tokens_per_image']:,} of {compute['tokens_per_image']:,} tokens an image "
        "hold body; forward, backward and what is recomputed"
    )
    hours_reason = f"{hours}, at {compute['utilisation']:.0%} of the peak, without waiting for data"
    return [
        _row(
            "predicted memory",
            f"{memory['total_in_gb']:.1f} of {memory['planned_for_in_gb']:g} GB",
            memory_reason,
        ),
        _row("arithmetic of a step", f"{compute['tflop_per_step']:.4g} TFLOP", compute_reason),
        _row("hours in all", f"{compute['steps']:,} steps", hours_reason),
    ]


def _architecture(arch: Mapping[str, Any]) -> str:
    return (
        f"width {arch['embed_dim']}, {arch['depth']} blocks, {arch['num_heads']} heads, "
        f"{arch['stem']} stem"
    )


def _schedule(training: Mapping[str, Any]) -> str:
    return f"{training['num_epochs']} x {training['num_iterations_per_epoch']} steps"


def _by(values: list[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _hours(value: float) -> str:
    if value < 1:
        return f"{max(1, round(value * 60))} min"
    if value >= 48:
        return f"{value / 24:.0f} d"
    return f"{value:.0f} h" if value >= 10 else f"{value:.1f} h"


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
