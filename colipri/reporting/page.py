"""One self-contained HTML page: no script, no font, no image and no style from anywhere else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import contourpy
import jinja2
import numpy as np
from matplotlib import image

import colipri
from colipri.common.atomic import atomic_write_text
from colipri.common.errors import ColipriError
from colipri.common.page_parts import Picture, Section

# Nothing is loaded or run, even if text from a data set should slip through as markup one day.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NOTICE = "Research software. Not a medical device; not for diagnosis or treatment."
EN_DASH = "\u2013"


@dataclass(frozen=True)
class KeyNumber:
    """One of the few figures at the top: what it is, its value, and what to hold it against."""

    name: str
    value: str
    note: str = ""
    control: bool = False


@dataclass(frozen=True)
class PageHead:
    """Title, one line below it, and the key numbers."""

    title: str
    subtitle: str = ""
    numbers: tuple[KeyNumber, ...] = field(default_factory=tuple)


def build_page(
    output: Path | str,
    sections: Sequence[Section | None],
    *,
    title: str = "colipri report",
    subtitle: str = "",
    numbers: Sequence[KeyNumber] = (),
) -> Path:
    """Write the page; sections that are None (nothing to show) are left out.

    Args:
        output: The file.
        sections: In any order; ``Section.order`` decides.
        title: Of the page.
        subtitle: One line below it.
        numbers: The figures at the top.

    Raises:
        ColipriError: there is nothing to show, or the file cannot be written.
    """
    present = [section for section in sections if section is not None]
    if not present:
        raise ColipriError(f"nothing to report in {output}: no section has any content")
    atomic_write_text(output, render_page(PageHead(title, subtitle, tuple(numbers)), present))
    return Path(output)


def render_page(head: PageHead, sections: Sequence[Section]) -> str:
    """Render the whole document as text."""
    ordered = sorted(sections, key=lambda section: section.order)
    anchors = _anchors([section.title for section in ordered])
    page: str = (
        _environment()
        .get_template("page.html")
        .render(
            head=head,
            sections=list(zip(ordered, anchors, strict=True)),
            policy=POLICY,
            notice=NOTICE,
            version=colipri.__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
    )
    return page


def number(value: float | None, decimals: int = 3) -> str:
    """Format a number for people; an undefined one is a dash."""
    return EN_DASH if value is None else f"{value:.{decimals}f}"


def bounds(estimate: Mapping[str, Any], decimals: int = 3) -> str:
    """Format ``0.84-0.90`` of {"low", "high"}, with an en dash."""
    return f"{number(estimate['low'], decimals)}{EN_DASH}{number(estimate['high'], decimals)}"


def tidy(text: Any) -> Any:
    """Signs as they are set: 2 \u00d7 2, and no line break before a unit. Other values pass."""
    if not isinstance(text, str):
        return text
    return re.sub(r"(?<=\d) x (?=[\d.])", " \u00d7 ", re.sub(r"(?<=\d) %", "\u00a0%", text))


def png_address(picture: Picture) -> str:
    """Return the picture as a data address, so that no file is needed beside the page."""
    pixels = picture.pixels
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    buffer = io.BytesIO()
    nothing: Any = {"Software": None}  # not even the name of what wrote it
    image.imsave(buffer, np.ascontiguousarray(pixels), format="png", metadata=nothing)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def outline_path(picture: Picture) -> str:
    """Return the borders of the picture's mask as an SVG path in mask pixels; empty for an empty
    mask.
    """
    mask = picture.outline
    if mask is None or not mask.any():
        return ""
    padded = np.pad(mask, 1).astype(float)
    lines: list[Any] = contourpy.contour_generator(z=padded).lines(0.5)  # type: ignore[assignment]
    # a pixel's value belongs to its centre; the padding moved everything by one
    return " ".join(
        "M" + "L".join(f"{x - 0.5:.2f} {y - 0.5:.2f}" for x, y in line) + "Z" for line in lines
    )


def aspect_ratio(picture: Picture) -> str:
    """Return the width by height in mm, as CSS writes it."""
    down, across = picture.millimetres
    rows, columns = picture.pixels.shape[:2]
    return f"{columns * across:.4g} / {rows * down:.4g}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colipri.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        tidy=tidy,
        bounds=bounds,
        png=png_address,
        outline=outline_path,
        ratio=aspect_ratio,
        kind=lambda part: type(part).__name__.lower(),
    )
    return environment


def _anchors(titles: Sequence[str]) -> list[str]:
    """Readable, unique fragments."""
    anchors: list[str] = []
    for title in titles:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        anchor, count = base, 2
        while anchor in anchors:
            anchor, count = f"{base}-{count}", count + 1
        anchors.append(anchor)
    return anchors
