"""The plot of label efficiency: macro AUROC over the share of labelled training patients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from colipri.common.atomic import atomic_path


def write_plot(curve: Mapping[str, Any], target: Path) -> Path:
    """Write the plot as PNG: the mean over subsets, and each subset as a point.

    Args:
        curve: ``label_efficiency`` of a probe's result.
        target: The file.
    """
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    shares, means = curve_points(curve)
    for point in curve["points"]:
        values = [one["macro_auroc"] for one in point["seeds"]]
        axes.plot([100 * point["fraction"]] * len(values), values, "o", color="#9aa5b1", ms=4)
    axes.plot([100 * share for share in shares], means, "-o", color="#1f5fa8")
    axes.axhline(0.5, color="#9aa5b1", linewidth=1, linestyle=(0, (3, 3)))
    axes.set_xscale("log")
    ticks = [100 * share for share in shares]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled training patients (%)")
    axes.set_ylabel("macro AUROC")
    axes.set_title(f"{curve['method']} head on frozen features")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return target


def curve_points(
    curve: Mapping[str, Any], metric: str = "macro_auroc"
) -> tuple[list[float], list[float]]:
    """Return the shares, and the mean of a metric over the subsets of each that define it."""
    shares, means = [], []
    for point in curve["points"]:
        values = [one[metric] for one in point["seeds"] if one[metric] is not None]
        if values:
            shares.append(float(point["fraction"]))
            means.append(float(np.mean(values)))
    return shares, means
