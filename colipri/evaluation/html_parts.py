"""HTML from parts that cannot be forgotten to escape.

Only :class:`Html` is markup. Everything else that goes into an element is text and is escaped, so a
case that is called ``<script>`` stays a name, whoever builds the section.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_VOID = {"img", "br", "meta", "line", "rect", "circle", "polyline", "polygon", "path"}


EN_DASH = "\u2013"  # between the ends of a range, and for what is undefined
TIMES = "\u00d7"
MINUS = "\u2212"


class Html(str):
    """Markup made by this module: safe to put into a page as it is."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """``<name attributes>children</name>``.

    Args:
        name: Of the element.
        children: Html is taken as it is, everything else is text and escaped; None is left out.
        attributes: ``class_`` for ``class``, underscores become hyphens; values are escaped, None
            is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(
            f"<{name}{written}>" if name in ("img", "br", "meta") else f"<{name}{written}/>"
        )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """Children one after the other, escaped where they are not markup."""
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(str(child), quote=True)
            for child in children
            if child is not None
        )
    )


def paragraph(*children: object, class_: str | None = None) -> Html:
    """One paragraph of text."""
    return element("p", *children, class_=class_)


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, numeric: Iterable[int] = ()
) -> Html:
    """A table that scrolls sideways on small screens.

    Args:
        header: One cell a column; all empty: no header.
        rows: Cells; the first of a row is its heading.
        numeric: Columns set flush right with figures of equal width.
    """
    right = set(numeric)
    cells = [_cell("th", cell, k in right, "col") for k, cell in enumerate(header)]
    head = element("thead", element("tr", *cells)) if any(header) else None
    body = [
        element(
            "tr",
            *(
                _cell("th" if k == 0 else "td", cell, k in right, "row" if k == 0 else None)
                for k, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    return element("div", element("table", head, element("tbody", *body)), class_="scroll")


def _cell(name: str, content: object, numeric: bool, scope: str | None) -> Html:
    return element(name, content, class_="number" if numeric else None, scope=scope)


def png_image(
    pixels: np.ndarray, description: str, *, millimetres: tuple[float, float] | None = None
) -> Html:
    """An image inside the page, no file beside it.

    Args:
        pixels: (rows, columns) or (rows, columns, 3) uint8.
        description: What it shows, for those who cannot see it.
        millimetres: Extent of a row step and of a column step; voxels that are not square are shown
            in their true proportion.
    """
    from matplotlib import image

    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    buffer = io.BytesIO()
    image.imsave(buffer, pixels, format="png")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    down, across = millimetres or (1.0, 1.0)
    ratio = f"{pixels.shape[1] * across:.4g} / {pixels.shape[0] * down:.4g}"
    return element(
        "img",
        src=f"data:image/png;base64,{encoded}",
        alt=description,
        style=f"aspect-ratio: {ratio}",
    )


def figure(content: Html, *caption: object, class_: str | None = None) -> Html:
    """Something to look at, with a caption."""
    return element("figure", content, element("figcaption", *caption), class_=class_)


def titled(content: Html, *title: object) -> Html:
    """A chart with its title above."""
    return element("figure", element("figcaption", *title, class_="above"), content)


def grid(cells: Iterable[Html], class_: str = "") -> Html:
    """Cells beside each other, as many as fit."""
    return element("div", *cells, class_=f"grid {class_}".strip())


def number(value: float | None, decimals: int = 3) -> str:
    """A number for people; an undefined one is a dash."""
    return EN_DASH if value is None else f"{value:.{decimals}f}"


def interval(entry: dict[str, float | None] | None, decimals: int = 3) -> Html:
    """``0.871 (0.84–0.90)`` of {value, low, high}; the interval is set in smaller type."""
    if not entry or entry.get("value") is None:
        return element("span", "undefined", class_="muted")
    low, high = entry.get("low"), entry.get("high")
    text = number(entry["value"], decimals)
    if low is None or high is None:
        return join([text])
    bounds = f"{number(low, decimals)}{EN_DASH}{number(high, decimals)}"
    return join([text, " ", element("span", bounds, class_="bounds")])
