"""Charts as inline SVG: sharp on paper and phone, and coloured by the page (light and dark).

Sizes are in SVG units, which the page scales; colours are classes of the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from colipri.evaluation.html_parts import MINUS, Html, element

Points = Sequence[tuple[float, float]]
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 36.0


@dataclass(frozen=True)
class Series:
    """One curve; ``tone`` is a class of the style sheet: model, second, third, control."""

    label: str
    points: Points
    tone: str = "model"


@dataclass(frozen=True)
class _Frame:
    """Maps data to the drawing area."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, right = _LEFT, self.width - _RIGHT
        bottom, top = self.height - _BOTTOM, _TOP
        share_x = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        share_y = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return left + share_x * (right - left), bottom + share_y * (top - bottom)

    def path(self, points: Points) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in points)


def line_chart(
    series: Sequence[Series],
    x_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    reference: tuple[float, str] | None = None,
    width: float = 460,
    height: float = 250,
) -> Html:
    """Curves over a common axis, with a legend below the drawing where there are several.

    Args:
        series: At least one point in all.
        x_label: With unit; what goes up is the title's to say.
        y_range: Fixed range; default: that of the data.
        reference: A horizontal line and its name, such as (0.5, "chance").
        width, height: SVG units.
    """
    points = [point for one in series for point in one.points]
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points), whole=True)
    low, high = y_range or (min(y for _, y in points), max(y for _, y in points))
    y_ticks = _ticks(low, high)
    frame = _Frame(width, height, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    parts = _axes(frame, x_ticks, y_ticks, x_label)
    if reference is not None:
        parts += _reference(frame, *reference)
    for one in series:
        parts.append(element("polyline", points=frame.path(one.points), class_=f"curve {one.tone}"))
        if len(one.points) <= 30:
            parts += [_dot(frame, point, one.tone) for point in one.points]
    drawing = _svg(frame, parts, f"{', '.join(one.label for one in series)} over {x_label}")
    return element("div", drawing, _legend(series) if len(series) > 1 else None, class_="chart")


def roc_chart(curve: Points, band: Points, label: str, *, size: float = 240) -> Html:
    """One ROC curve with its pointwise confidence band.

    Args:
        curve: (false positive rate, sensitivity).
        band: Outline of the band as a closed polygon; empty for none.
        label: Spoken description.
        size: SVG units, both sides.
    """
    frame = _Frame(size + _LEFT - _BOTTOM, size, (0, 1), (0, 1))
    ticks = [0.0, 0.5, 1.0]
    parts = _axes(frame, ticks, ticks, f"1 {MINUS} specificity", "sensitivity")
    parts.append(element("polyline", points=frame.path([(0, 0), (1, 1)]), class_="reference"))
    if band:
        parts.append(element("polygon", points=frame.path(band), class_="band"))
    parts.append(element("polyline", points=frame.path(curve), class_="curve model"))
    return _svg(frame, parts, label)


def interval_bar(
    entry: dict[str, float | None], control: float | None = None, chance: float = 0.5
) -> Html:
    """A row of a forest plot, 0 to 1: the value as a dot, its interval as a line, the control as
    a ring, chance as a tick."""
    width, height, middle = 180.0, 18.0, 9.0

    def at(value: float) -> str:
        return f"{6 + value * (width - 12):.1f}"

    parts = [
        element("line", x1=at(0), x2=at(1), y1=middle, y2=middle, class_="rail"),
        element("line", x1=at(chance), x2=at(chance), y1=2, y2=height - 2, class_="reference"),
    ]
    value, low, high = entry.get("value"), entry.get("low"), entry.get("high")
    if low is not None and high is not None:
        parts.append(
            element("line", x1=at(low), x2=at(high), y1=middle, y2=middle, class_="whisker")
        )
    if control is not None:
        parts.append(element("circle", cx=at(control), cy=middle, r=4, class_="ring"))
    if value is not None:
        parts.append(element("circle", cx=at(value), cy=middle, r=4.5, class_="dot model"))
    return element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", class_="forest", aria_hidden="true"
    )


def _axes(
    frame: _Frame,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str = "",
) -> list[Html]:
    parts: list[Html] = []
    left, bottom = frame.at(frame.x_range[0], frame.y_range[0])
    right, top = frame.at(frame.x_range[1], frame.y_range[1])
    for tick in y_ticks:
        _, y = frame.at(0, tick)
        parts.append(_line(left, y, right, y, "gridline"))
        parts.append(_text(left - 6, y + 3.5, _short(tick, y_ticks), "end"))
    for tick in x_ticks:
        x, _ = frame.at(tick, 0)
        parts.append(_line(x, bottom, x, bottom + 4, "axis"))
        parts.append(_text(x, bottom + 15, _short(tick, x_ticks), "middle"))
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text((left + right) / 2, frame.height - 4, x_label, "middle", "label"))
    if not y_label:
        return parts
    centre = (top + bottom) / 2
    turned = f"rotate(-90 10 {centre:.1f})"
    parts.append(
        element("text", y_label, x=10, y=f"{centre:.1f}", transform=turned, class_="label middle")
    )
    return parts


def _reference(frame: _Frame, value: float, name: str) -> list[Html]:
    left, y = frame.at(frame.x_range[0], value)
    right, _ = frame.at(frame.x_range[1], value)
    return [_line(left, y, right, y, "reference"), _text(right - 2, y - 4, name, "end")]


def _legend(series: Sequence[Series]) -> Html:
    entries = [
        element("span", element("i", class_=f"swatch {one.tone}"), one.label) for one in series
    ]
    return element("div", *entries, class_="legend")


def _dot(frame: _Frame, point: tuple[float, float], tone: str) -> Html:
    x, y = frame.at(*point)
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.4, class_=f"dot {tone}")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", **{key: f"{value:.1f}" for key, value in places.items()}, class_=kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", class_=f"{kind} {anchor}")


def _svg(frame: _Frame, parts: Sequence[Html], label: str) -> Html:
    box = f"0 0 {frame.width:g} {frame.height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=label)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from below ``low`` to above ``high``."""
    from matplotlib.ticker import MaxNLocator

    if high <= low:
        low, high = low - (0 if whole else 0.5), low + (1 if whole else 0.5)
    locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole)
    return [float(tick) for tick in locator.tick_values(low, high)]


def _short(value: float, ticks: Sequence[float]) -> str:
    """As many decimals as the distance of the ticks needs; very small steps in powers of ten."""
    step = min(abs(b - a) for a, b in pairwise(ticks))
    if 0 < step < 1e-3:
        return f"{value:.1e}" if value else "0"
    for decimals in range(4):
        if abs(round(step, decimals) - step) < 1e-9:
            return f"{value:.{decimals}f}"
    return f"{value:.3g}"
