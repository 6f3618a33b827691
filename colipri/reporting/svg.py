"""matplotlib's drawings as SVG elements whose colours are the page's (light and dark).

A chart is drawn with the colours of ``TONES``; in the SVG each becomes the CSS variable of its
name, which the style sheet defines for both colour schemes. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MODEL, SECOND, THIRD, CONTROL = "model", "second", "third", "control"
INK, MUTED, LINE, PAPER = "ink", "muted", "line", "paper"
TONES = {  # any distinct colours would do: they never reach the page
    MODEL: "#0a6f74",
    SECOND: "#b4530a",
    THIRD: "#6b4fa3",
    CONTROL: "#7b8691",
    INK: "#1a2027",
    MUTED: "#5a6672",
    LINE: "#dfe4e8",
    PAPER: "#fefefe",
}
_STYLE = {
    "svg.fonttype": "none",  # text as text
    "text.parse_math": False,  # names of a data set may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "text.color": TONES[MUTED],
    "axes.labelcolor": TONES[MUTED],
    "axes.edgecolor": TONES[LINE],
    "xtick.color": TONES[LINE],
    "ytick.color": TONES[LINE],
    "xtick.labelcolor": TONES[MUTED],
    "ytick.labelcolor": TONES[MUTED],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": TONES[LINE],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@contextmanager
def _style(salt: str) -> Iterator[None]:
    settings: dict[Any, Any] = {**_STYLE, "svg.hashsalt": salt}  # ids are unique on the page
    with matplotlib.rc_context(settings):
        yield


def draw_svg(draw: Callable[[Axes], None], inches: tuple[float, float], description: str) -> Markup:
    """Draw on axes of this size and return the SVG element for the page.

    Args:
        draw: draws on the axes.
        inches: width and height.
        description: for people who do not see it.
    """
    with _style(description):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return for_page(buffer.getvalue(), description)


def _round_coordinates(tag: re.Match[str]) -> str:
    """Hundredths of a point are enough; numbers between tags are text and stay."""
    return re.sub(r"(?<=\d\.\d{2})\d+", "", tag[0])


def for_page(svg: str, description: str) -> Markup:
    """Return matplotlib's SVG file as an element of the page.

    Args:
        svg: The file's content.
        description: Read aloud instead of the drawing.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)  # would rule the page
    referenced = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in referenced else "", body)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = re.sub(r"<[^>]*>", _round_coordinates, body)
    body = body.replace("xlink:href", "href").replace("\n", " ")
    for name, colour in TONES.items():
        body = body.replace(colour, f"var(--{name})")
    head = f'<svg class="chart" role="img" aria-label="{escape(description)}"'
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box is not None
    return Markup(f"{head} {view_box[0]}>" + body[body.index(">") + 1 :].strip())
