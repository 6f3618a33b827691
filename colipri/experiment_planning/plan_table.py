"""A plan as tables for people: what it costs, what was chosen, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from colipri.common.display import show_sizes
from colipri.plans.architecture import EncoderSettings, TextEncoderPlan
from colipri.plans.overrides import value_at
from colipri.plans.plans import Configuration, Plans
from colipri.plans.training import TrainingPlan
from colipri.raw_dataset.left_out import describe_left_out

WIDTH = 110
_NAME, _VALUE = 26, 28
_LONGEST_SHOWN_HOURS = 24 * 365  # a device that needs more than a year is not an option

Shown = tuple[str, str, str]  # name, choice, reason
# Rows in the order of the decisions: entry of "because" -> how its value is shown.
_ROWS: dict[str, Callable[[Configuration], str]] = {
    "spacing": lambda c: show_sizes(c.spacing) + " mm",
    "patch_size": lambda c: show_sizes(c.patch_size) + " voxels",
    "data_identifier": lambda c: c.data_identifier,
    "normalization_schemes": lambda c: ", ".join(c.normalization_schemes),
    "architecture": lambda c: _architecture(c.encoder),
    "text_encoder": lambda c: _text_encoder(c.text_encoder),
    "vocabulary_size": lambda c: f"{c.text_encoder.vocabulary_size:,} tokens",
    "max_text_tokens": lambda c: f"{c.max_text_tokens} tokens",
    "embed_dim": lambda c: str(c.embed_dim),
    "objectives": lambda c: ", ".join(c.training.objectives),
    "batch_size": lambda c: f"{c.batch_size} studies",
    "micro_batch_size": lambda c: f"{c.micro_batch_size} at once",
    "activation_checkpointing": lambda c: c.activation_checkpointing,
    "num_epochs": lambda c: _schedule(c.training),
    "validate_every": lambda c: f"every {c.training.validate_every} epochs",
    "learning_rate": lambda c: f"{c.training.learning_rate:g}",
    "weight_decay": lambda c: f"{c.training.weight_decay:g}",
}


def format_plan(plans: Plans) -> str:
    """Format the costs of all configurations, then every choice with its reason, shared ones
    once.
    """
    configurations = plans.configurations
    parts = [
        f"Plan {plans.plans_name} of {plans.dataset_name} by {plans.planner}, for "
        f"{plans.gpu_memory_target_in_gb:g} GB of GPU memory"
        + (f" on each of {plans.num_gpus} GPUs" if plans.num_gpus > 1 else ""),
        *textwrap.wrap(describe_left_out(plans.left_out) if plans.left_out else "", WIDTH),
        "",
        *_costs(configurations),
    ]
    rows = {name: plan_rows(configuration) for name, configuration in configurations.items()}
    shared = [row for row in next(iter(rows.values())) if all(row in own for own in rows.values())]
    for name, own in rows.items():
        parts += _section(name, [row for row in own if len(rows) == 1 or row not in shared])
    if len(rows) > 1 and shared:
        parts += _section("all configurations", shared)
    return "\n".join(parts)


def _costs(configurations: Mapping[str, Configuration]) -> list[str]:
    """Format a line per number and a column per configuration, and how they are computed."""
    columns = {name: _cost_column(one) for name, one in configurations.items()}
    names = list(dict.fromkeys(row for column in columns.values() for row in column))
    lines = ["".join([f"{'cost':<{_NAME}}", *(f"{name:<{_VALUE}}" for name in columns)]).rstrip()]
    lines.append("-" * (_NAME + _VALUE * len(columns) - 2))
    for row in names:
        cells = [f"{column.get(row, ''):<{_VALUE}}" for column in columns.values()]
        lines.append("".join([f"{row:<{_NAME}}", *cells]).rstrip())
    first = next(iter(configurations.values())).compute_estimate
    notes = (
        "Memory: weights, optimiser and activations of a micro batch whose scans fill the patch, "
        "and CUDA's own. Arithmetic: forward, backward and what is recomputed, on the tokens that "
        f"hold body. Time: one device at {100 * first.utilisation:.0f} % of its bf16 peak "
        "(CPUs: fp32), without waiting for data and without validation."
    )
    return lines + textwrap.wrap(notes, WIDTH)


def _cost_column(configuration: Configuration) -> dict[str, str]:
    memory, compute = configuration.memory_estimate, configuration.compute_estimate
    pair = memory.per_sample_in_gb + memory.live_in_gb
    column = {
        "predicted memory": f"{memory.total_in_gb:.1f} of {memory.planned_for_in_gb:g} GB",
        "  weights, optimiser": f"{memory.parameters_in_gb:.2f} GB",
        "  activations of a pair": f"{pair:.2f} GB x {configuration.micro_batch_size}",
        "tokens with body": f"{compute.kept_tokens_per_image:,} of {compute.tokens_per_image:,}",
        "arithmetic of a step": f"{compute.tflop_per_step:,.4g} TFLOP",
        "steps": f"{compute.steps:,}",
    }
    for device, hours in compute.hours.items():
        if hours <= _LONGEST_SHOWN_HOURS:
            column[f"time on {device}"] = _hours(hours)
    return column


def _section(title: str, rows: list[Shown]) -> list[str]:
    head = f"{title:<{_NAME}}{'choice':<{_VALUE}}reason"
    return ["", head, "-" * WIDTH, *(_row(*row) for row in rows)]


def plan_rows(configuration: Configuration) -> list[Shown]:
    rationale, content = configuration.rationale, configuration.to_dict()
    shown = [entry for entry in _ROWS if entry in rationale]
    rows = [(entry, _ROWS[entry](configuration), rationale[entry]) for entry in shown]
    others = [entry for entry in rationale if entry not in _ROWS]  # of planners that plan more
    return rows + [(entry, _short(value_at(content, entry)), rationale[entry]) for entry in others]


def _row(name: str, value: str, reason: str) -> str:
    text = textwrap.wrap(reason, WIDTH - _NAME - _VALUE) or [""]
    values = textwrap.wrap(value, _VALUE - 2) or [""]
    count = max(len(text), len(values))
    text += [""] * (count - len(text))
    values += [""] * (count - len(values))
    if len(name) >= _NAME:  # a path into the plan
        name = name.rpartition(".")[2]
    names = [name] + [""] * (count - 1)
    rows = zip(names, values, text, strict=True)
    return "\n".join(f"{a:<{_NAME}}{b:<{_VALUE}}{c}".rstrip() for a, b, c in rows)


def _architecture(encoder: EncoderSettings) -> str:
    local = encoder.attention
    return (
        f"{encoder.depth} blocks of width {encoder.embed_dim}, {encoder.num_heads} heads, "
        f"{encoder.stem} stem"
        + ("" if local is None else f", local attention ({local.global_blocks} blocks global)")
    )


def _text_encoder(encoder: TextEncoderPlan) -> str:
    if encoder.source == "pretrained":
        return str(encoder.name_or_path)
    bert = encoder.bert
    return f"from scratch: {bert.num_hidden_layers} layers of width {bert.hidden_size}"


def _schedule(training: TrainingPlan) -> str:
    return f"{training.num_epochs} x {training.num_iterations_per_epoch} steps"


def _hours(value: float) -> str:
    if value * 60 < 1:
        return "under a minute"
    if value < 1:
        return f"{round(value * 60)} min"
    if value >= 48:
        return f"{value / 24:.1f} days"
    return f"{value:.0f} h" if value >= 10 else f"{value:.1f} h"


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
