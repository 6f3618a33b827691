"""Sections of the report that show what went in: data, plan, training; and the next commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colipri.evaluation.html_page import Section
from colipri.evaluation.html_parts import (
    EN_DASH,
    TIMES,
    Html,
    element,
    figure,
    grid,
    join,
    number,
    paragraph,
    png_image,
    table,
    titled,
)
from colipri.evaluation.svg_charts import Series, line_chart


def montage_section(
    slices: Sequence[Mapping[str, Any]],
    *,
    title: str = "The data",
    summary: str = "",
    order: int = 10,
) -> Section:
    """Slices of cases.

    Args:
        slices: ``pixels`` (rows, columns[, 3]) uint8, ``caption``, and optionally ``millimetres``
            (row step, column step) and ``report`` (a patient's text: given only when asked for).
    """
    cells = [
        figure(
            png_image(entry["pixels"], str(entry["caption"]), millimetres=entry.get("millimetres")),
            entry["caption"],
            _report(entry.get("report")),
        )
        for entry in slices
    ]
    return Section(title, grid(cells, "slices"), summary, order)


def _report(text: str | None) -> Html | None:
    if not text:
        return None
    return element("details", element("summary", "Report"), element("div", text, class_="report"))


def plan_section(plans: Mapping[str, Any], configuration: str, *, order: int = 30) -> Section:
    """Every planned number with its reason."""
    planned = plans["configurations"][configuration]
    rows = [
        [name.replace("_", " "), describe(planned_value(planned, name)), reason]
        for name, reason in planned.get("because", {}).items()
    ]
    target = plans.get("gpu_memory_target_in_gb")
    memory = planned.get("memory_estimate", {}).get("total_in_gb")
    summary = f"{plans.get('planner', 'The planner')} chose {configuration} from the fingerprint"
    if target is not None:
        summary += f" for {target:g} GB of accelerator memory"
    if isinstance(memory, (int, float)):
        summary += f"; predicted use {memory:.1f} GB"
    return Section("The plan", table(["What", "Choice", "Why"], rows), summary + ".", order)


def planned_value(planned: Mapping[str, Any], name: str) -> Any:
    """The number that a ``because`` line speaks of; it may sit one level deeper ("a.b" or "b")."""
    value: Any = planned
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is not None:
        return value
    nested = (planned.get(room) for room in ("training", "architecture", "text_encoder"))
    return next((room[name] for room in nested if isinstance(room, Mapping) and name in room), None)


def training_section(history: Sequence[Mapping[str, Any]], *, order: int = 40) -> Section | None:
    """Curves of metrics.jsonl; None before the first epoch."""
    charts = [
        _chart(history, "loss", {"training": "train.loss", "validation": "val.loss"}),
        _chart(
            history,
            "zero-shot macro AUROC",
            {"validation": "val.zero_shot_macro_auroc"},
            y_range=(0.4, 1.0),
            reference=(0.5, "chance"),
        ),
        _chart(
            history,
            "recall@5",
            {
                "report → image": "val.recall_at_5_text_to_image",
                "image → report": "val.recall_at_5_image_to_text",
            },
            y_range=(0.0, 1.0),
        ),
        _chart(history, "learning rate", {"learning rate": "learning_rate"}),
    ]
    shown = [chart for chart in charts if chart is not None]
    if not shown:
        return None
    seconds = sum(entry.get("seconds") or 0 for entry in history)
    summary = (
        f"{len(history)} epochs in {duration(seconds)}. All curves are of the training and the "
        "validation split; the test split plays no part."
    )
    return Section("Training", grid(shown, "wide"), summary, order)


def _chart(
    history: Sequence[Mapping[str, Any]], label: str, paths: Mapping[str, str], **options: Any
) -> Html | None:
    tones = ("model", "second", "third")
    series = []
    for tone, (name, path) in zip(tones, paths.items(), strict=False):
        found = ((entry["epoch"], planned_value(entry, path)) for entry in history)
        points = [(float(x), float(y)) for x, y in found if isinstance(y, (int, float))]
        if points:
            series.append(Series(name, points, tone))
    if not series:
        return None
    if "y_range" in options:  # a fixed range never hides a point
        low, high = options["y_range"]
        values = [y for one in series for _, y in one.points]
        options["y_range"] = (min(low, *values, low), max(high, *values, high))
    return titled(
        line_chart(series, "epoch", **options), element("b", label[:1].upper() + label[1:])
    )


def commands_section(
    commands: Sequence[tuple[str, str]], *, title: str = "Next", order: int = 90
) -> Section:
    """Commands to type, each with a line that says what it does."""
    blocks = [
        join([paragraph(purpose), element("pre", element("code", command))])
        for purpose, command in commands
    ]
    return Section(title, join(blocks), "", order)


def describe(value: Any) -> str:
    """A value for people: lists as 1 × 2 × 3, mappings as name value, numbers without tails."""
    if value is None:
        return EN_DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{str(name).replace('_', ' ')} {describe(entry)}" for name, entry in value.items()
        )
    if isinstance(value, (list, tuple)):
        entries = [describe(entry) for entry in value]
        numeric = all(isinstance(entry, (int, float)) for entry in value)
        return (f" {TIMES} " if numeric and len(entries) == 3 else ", ").join(entries)
    return str(value)


def duration(seconds: float) -> str:
    """72 s, 14 min, 3.2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{number(seconds / 3600, 1)} h"
