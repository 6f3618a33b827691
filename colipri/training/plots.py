"""progress.png: the curves of a run, as nnU-Net users expect to find them in the fold's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_path


def plot_progress(history: list[dict[str, Any]], target: Path) -> None:
    """Draw losses, validation quality, learning rate and epoch time from the run's history."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 13), layout="constrained")
    FigureCanvasAgg(figure)
    losses, quality, rate, duration = figure.subplots(4, 1, sharex=True)
    _curve(losses, history, ("train", "loss"), "training loss", "tab:blue")
    _curve(losses, history, ("val", "loss"), "validation loss", "tab:red")
    _curve(quality, history, ("val", "zero_shot_macro_auroc"), "zero-shot macro AUROC", "tab:green")
    _curve(
        quality,
        history,
        ("val", "recall_at_5_image_to_text"),
        "recall@5 image to report",
        "tab:orange",
    )
    _curve(
        quality,
        history,
        ("val", "recall_at_5_text_to_image"),
        "recall@5 report to image",
        "tab:brown",
    )
    quality.set_ylim(0, 1)
    _curve(rate, history, ("learning_rate",), "learning rate", "tab:purple")
    _curve(duration, history, ("seconds",), "seconds per epoch", "tab:gray")
    for axes in (losses, quality, rate, duration):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best", frameon=False)
    duration.set_xlabel("epoch")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110)


def _curve(
    axes: Any, history: list[dict[str, Any]], path: tuple[str, ...], label: str, color: str
) -> None:
    points = [(entry["epoch"], _lookup(entry, path)) for entry in history]
    known = [(epoch, value) for epoch, value in points if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), label=label, color=color, marker=".")


def _lookup(entry: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = entry
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
