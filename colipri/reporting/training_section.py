"""The section that shows the training: curves of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colipri.common.page_parts import Section
from colipri.reporting.charts import SERIES_TONES, Chart, Charts, Series, line_chart
from colipri.reporting.run_results import RunResults
from colipri.reporting.words import in_words
from colipri.training.throughput import format_duration


def training_section(run: RunResults, *, order: int = 40) -> Section | None:
    """Show the curves of metrics.jsonl; None before the first epoch."""
    history = run.history
    names = _objectives_of(history, run.objectives)
    total = "all objectives" if len(names) != 1 else in_words(names[0])
    paths = {"training": "train.loss", "validation": "val.loss"}
    charts = [_curves(history, f"Loss, {total}", paths)]
    for name in names if len(names) > 1 else ():
        paths = {"training": f"train.{name}/loss", "validation": f"val.{name}/loss"}
        charts.append(_curves(history, f"Loss, {in_words(name)}", paths))
    charts += [
        _curves(
            history,
            "Zero-shot macro AUROC on validation cases",
            {"validation": "val.zero_shot_macro_auroc"},
            y_range=(0.4, 1.0),
            reference=(0.5, "chance"),
        ),
        _curves(
            history,
            "Recall@5 on validation cases",
            {
                "report to image": "val.recall_at_5_text_to_image",
                "image to report": "val.recall_at_5_image_to_text",
            },
            y_range=(0.0, 1.0),
        ),
        _curves(history, "Learning rate at the end of the epoch", {"rate": "learning_rate"}),
        _curves(history, "Temperature of the similarities", {"temperature": "temperature"}),
        _curves(history, "Gradient norm, mean of the steps", {"norm": "train.gradient_norm"}),
        _curves(history, "Throughput, scans per second", {"scans/s": "samples_per_second"}),
    ]
    shown = [chart for chart in charts if chart is not None]
    if not shown:
        return None
    seconds = sum(entry.get("seconds") or 0 for entry in history)
    speeds = [e["samples_per_second"] for e in history if e.get("samples_per_second")]
    epochs = f"{len(history)} epoch{'s' if len(history) != 1 else ''}"
    summary = f"{epochs} in {format_duration(seconds)}"
    if speeds:
        device = run.debug.get("device")
        summary += f", {np.median(speeds):.3g} scans per second" + (
            f" on {device}" if device else ""
        )
    summary += ". The curves are of the training and validation splits; no test case is in them."
    return Section("Training", [Charts(shown)], summary, order)


def _objectives_of(history: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """Objectives that have a loss in any epoch, in the order of the settings.

    The history counts, because an objective of another package may be called "module:Class" in the
    settings, and may not be installed where the page is written.
    """
    found = {
        term.removesuffix("/loss"): None
        for entry in history
        for part in ("train", "val")
        for term in entry.get(part) or {}
        if term.endswith("/loss")
    }
    first = [name for name in settings if name in found]
    return [*first, *(name for name in found if name not in first)]


def _curves(
    history: Sequence[Mapping[str, Any]], title: str, paths: Mapping[str, str], **options: Any
) -> Chart | None:
    """A line chart of what the history has of these entries ("val.loss"); None for nothing."""
    series = []
    for tone, (name, path) in zip(SERIES_TONES, paths.items(), strict=False):
        section, _, key = path.rpartition(".")
        found = [
            (entry["epoch"] + 1, (entry.get(section) or {} if section else entry).get(key))
            for entry in history
        ]
        points = [(float(x), float(y)) for x, y in found if isinstance(y, (int, float))]
        if points:
            series.append(Series(name, points, tone))
    return line_chart(title, series, "epoch", **options) if series else None
