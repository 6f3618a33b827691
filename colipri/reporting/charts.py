"""The charts of the page: curves, forest plots, ROC curves, histograms, boxes and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from colipri.reporting.svg import (
    CONTROL,
    INK,
    LINE,
    MODEL,
    PAPER,
    SECOND,
    THIRD,
    TONES,
    draw_svg,
)

Points = Sequence[tuple[float, float]]

SERIES_TONES = (MODEL, SECOND, THIRD, CONTROL)
_WIDE, _SMALL = 4.6, 2.9  # inches: a chart in a wide and in a narrow column of the page
_ROW = 0.27  # inches: a row of a chart with one row per name
_MAXIMUM_DOTS = 30


@dataclass(frozen=True)
class Chart:
    """A drawing with what stands around it: (name, tone) of the legend's entries."""

    svg: Markup
    title: str = ""
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Charts:
    """Charts beside each other; ``size`` says how many fit: "wide" (two), "small", or "full"."""

    charts: Sequence[Chart]
    size: str = "wide"


@dataclass(frozen=True)
class Series:
    """One curve of a line chart."""

    label: str
    points: Points
    tone: str = MODEL


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot: estimates {"value", "low", "high"} of the model and its control."""

    name: str
    model: Mapping[str, Any]
    control: Mapping[str, Any] | None = None
    strong: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    reference: tuple[float, str] | None = None,
    log: bool = False,
) -> Chart:
    """Draw curves over a common axis; at least one point in all.

    Args:
        title: What goes up, with its unit.
        series: The curves.
        x_label: What goes to the right.
        y_range: At least this range is shown; default: that of the data.
        reference: A horizontal line and its name, such as (0.5, "chance").
        log: Logarithmic y axis; only for positive values.
    """

    def draw(axes: Axes) -> None:
        for one in series:
            few = len(one.points) <= _MAXIMUM_DOTS
            xs, ys = zip(*one.points, strict=True)
            axes.plot(xs, ys, color=TONES[one.tone], marker="o" if few else None)
        if y_range is not None:
            values = [y for one in series for _, y in one.points]
            margin = 0.02 * (y_range[1] - y_range[0])
            axes.set_ylim(min(y_range[0], *values) - margin, max(y_range[1], *values) + margin)
        if reference is not None:
            axes.axhline(reference[0], color=TONES[CONTROL], linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                reference[1],
                (1, reference[0]),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
            )
        if log:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel(x_label)

    description = f"{title}: {', '.join(one.label for one in series)} over {x_label}"
    svg = draw_svg(draw, (_WIDE, 2.5), description)
    legend = [(one.label, one.tone) for one in series] if len(series) > 1 else []
    return Chart(svg, title, legend=legend)


def forest_plot(rows: Sequence[ForestRow], x_label: str, *, chance: float = 0.5) -> Markup:
    """Draw estimates with their intervals, one row each; the control is below the model in its row.

    Args:
        rows: from top to bottom.
        x_label: below the axis.
        chance: value of a vertical line.
    """

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            if row.control is not None:
                _estimate(axes, row.control, place + 0.2, CONTROL, "o", 3.6)
            _estimate(axes, row.model, place - (0.12 if row.control else 0), MODEL, "o", 5.5)
            value = row.model.get("value")
            axes.annotate(
                "undefined" if value is None else f"{value:.2f}",
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=TONES[INK],
                fontweight="bold" if row.strong else "normal",
            )
        axes.axvline(chance, color=TONES[CONTROL], linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        _names_on_rows(axes, [row.name for row in rows], [row.strong for row in rows])
        ends = [
            end
            for row in rows
            for entry in (row.model, row.control or {})
            for end in (entry.get("low"), entry.get("value"))
            if end is not None
        ]
        axes.set_xlim(max(0.0, np.floor(10 * min([*ends, 0.4])) / 10), 1.005)
        axes.set_xlabel(x_label)

    values = [(row.name, row.model.get("value")) for row in rows]
    spoken = ", ".join(f"{name} {v:.2f}" for name, v in values if v is not None)
    return draw_svg(draw, (5.2, 0.62 + _ROW * len(rows)), f"{x_label}: {spoken}")


def roc_chart(
    title: str, curve: Points, band: Points, control: Points = (), *, caption: str = ""
) -> Chart:
    """Draw one ROC curve with its pointwise confidence band.

    Args:
        title: The finding.
        curve: (false positive rate, sensitivity).
        band: Outline of the band as a closed polygon; empty for none.
        control: Curve of the control; empty for none.
        caption: Below the title, such as the area and its interval.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=TONES[LINE], linewidth=1, linestyle=(0, (3, 3)))
        if band:
            axes.fill(*zip(*band, strict=True), color=TONES[MODEL], alpha=0.18, linewidth=0)
        if control:
            axes.plot(*zip(*control, strict=True), color=TONES[CONTROL], linewidth=1.1)
        axes.plot(*zip(*curve, strict=True), color=TONES[MODEL])
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_aspect("equal")
        axes.set_xlabel("1 \u2212 specificity")
        axes.set_ylabel("sensitivity")

    return Chart(draw_svg(draw, (_SMALL, 2.75), f"ROC curve of {title}"), title, caption)


def histograms(
    title: str,
    rows: Mapping[str, np.ndarray],
    x_label: str,
    *,
    marks: Sequence[float] = (),
    caption: str = "",
) -> Chart:
    """Draw one histogram per row over a common axis.

    Args:
        title: What is shown.
        rows: Name -> (n,) values; at least one value in all.
        x_label: With the unit.
        marks: One value per row that is marked by a line, such as what was planned.
        caption: Below the title.
    """
    values = np.concatenate([np.asarray(row, dtype=float) for row in rows.values()])
    low, high = min([*values, *marks]), max([*values, *marks])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 31)

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows.values()):
            counts, _ = np.histogram(row, edges)
            heights = 0.82 * counts / max(counts.max(), 1)
            axes.stairs(
                place + 0.45 - heights,
                edges,
                baseline=place + 0.45,
                fill=True,
                color=TONES[MODEL],
                alpha=0.75,
                linewidth=0,
            )
            if marks:
                axes.plot(
                    [marks[place]] * 2,
                    [place - 0.4, place + 0.45],
                    color=TONES[SECOND],
                    linewidth=1.6,
                )
        _names_on_rows(axes, list(rows))
        axes.set_xlabel(x_label)

    svg = draw_svg(draw, (_WIDE, 0.65 + 0.48 * len(rows)), f"{title}, histogram over {x_label}")
    return Chart(svg, title, caption)


def percentile_boxes(
    title: str,
    rows: Mapping[str, tuple[float, float, float, float, float]],
    x_label: str,
    *,
    caption: str = "",
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Draw distributions of which only percentiles are known.

    Args:
        title: What is shown.
        rows: Name -> five ascending numbers: whisker, box, middle, box, whisker.
        x_label: With the unit.
        caption: Which percentiles these are.
        marks: Values with a name that give the scale a meaning.
    """

    def draw(axes: Axes) -> None:
        for place, (low, start, middle, stop, high) in enumerate(rows.values()):
            axes.plot([low, high], [place, place], color=TONES[MODEL], linewidth=1.4)
            axes.barh(place, stop - start, 0.5, start, color=TONES[MODEL], alpha=0.35)
            axes.plot([middle] * 2, [place - 0.25, place + 0.25], color=TONES[MODEL], linewidth=2)
        for value, name in marks:
            axes.axvline(value, color=TONES[CONTROL], linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                name,
                (value, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=8,
            )
        _names_on_rows(axes, list(rows))
        axes.set_xlabel(x_label)

    return Chart(
        draw_svg(draw, (_WIDE, 0.8 + 0.4 * len(rows)), f"{title} over {x_label}"), title, caption
    )


def stacked_bars(
    title: str,
    rows: Mapping[str, Sequence[float]],
    names: Sequence[str],
    x_label: str,
    *,
    tones: Sequence[str] = (MODEL, LINE, CONTROL),
    caption: str = "",
) -> Chart:
    """Draw parts of a whole, one bar per row.

    Args:
        title: What is shown.
        rows: Name -> one number per part.
        names: Of the parts, for the legend.
        x_label: With the unit.
        tones: Of the parts.
        caption: Below the title.
    """

    def draw(axes: Axes) -> None:
        for place, parts in enumerate(rows.values()):
            start = 0.0
            for size, tone in zip(parts, tones, strict=False):
                axes.barh(place, size, 0.62, start, color=TONES[tone])
                start += size
        _names_on_rows(axes, list(rows))
        axes.grid(False)
        axes.set_xlim(0, max(sum(parts) for parts in rows.values()))
        axes.set_xlabel(x_label)

    svg = draw_svg(draw, (_WIDE, 0.65 + _ROW * len(rows)), f"{title}: {', '.join(rows)}")
    return Chart(svg, title, caption, list(zip(names, tones, strict=False)))


# ---------------------------------------------------------------- drawing


def _estimate(
    axes: Axes, entry: Mapping[str, Any], place: float, tone: str, marker: str, size: float
) -> None:
    if entry.get("value") is None:
        return
    if entry.get("low") is not None and entry.get("high") is not None:
        width = 2.4 if tone == MODEL else 1.2
        ends = [entry["low"], entry["high"]]
        axes.plot(ends, [place, place], color=TONES[tone], linewidth=width, alpha=0.55)
    fill = TONES[MODEL] if tone == MODEL else TONES[PAPER]
    axes.plot(
        [entry["value"]],
        [place],
        color=TONES[tone],
        marker=marker,
        markersize=size,
        markerfacecolor=fill,
        linestyle="",
    )


def _names_on_rows(axes: Axes, names: Sequence[str], strong: Sequence[bool] = ()) -> None:
    """Row names on the left, first row on top, vertical grid lines."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    for label in axes.get_yticklabels():
        label.set_color(TONES[INK])
    for label, bold in zip(axes.get_yticklabels(), strong, strict=False):
        label.set_fontweight("bold" if bold else "normal")
