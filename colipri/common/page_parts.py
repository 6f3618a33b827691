"""What a page shows, as plain data: no markup, so that any room can offer a section.

:mod:`colipri.reporting.page` lays these parts out. All text is plain text and is escaped there, so
a case that is called ``<script>`` stays a name, whoever builds the section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# A table cell: text, or an estimate {"value", "low", "high"}, shown with its interval.
Cell = str | int | Mapping[str, Any]


@dataclass(frozen=True)
class Paragraph:
    """A few sentences; ``quiet`` ones are set small, as the key to a chart."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways on small screens.

    Attributes:
        header: One cell per column; empty for a table without a header.
        rows: The first cell of a row is its heading.
        numeric: Columns that are aligned right, with digits of equal width.
        decimals: Of estimates.
        title: If given, the table is folded below this line.
    """

    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    numeric: Sequence[int] = ()
    decimals: int = 3
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        pixels: (rows, columns) grey or (rows, columns, 3) RGB, uint8.
        description: What it shows, for those who cannot see it.
        millimetres: Extent of a row step and of a column step; pixels that are not square are
            shown in their true proportion.
        outline: bool mask (any rows, any columns) over the same extent; its border is drawn.
        name: One or two words over the picture.
    """

    pixels: np.ndarray
    description: str
    millimetres: tuple[float, float] = (1.0, 1.0)
    outline: np.ndarray | None = None
    name: str = ""


@dataclass(frozen=True)
class Card:
    """Pictures that belong together, with a title and a caption.

    Attributes:
        pictures: In reading order.
        title: What it is.
        caption: Case, and what is known of it.
        text: Folded below the caption, such as the report. Patients' texts only where asked for.
    """

    pictures: Sequence[Picture]
    title: str
    caption: str = ""
    text: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cards beside each other, as many as fit.

    Attributes:
        cards: What is shown.
        columns: Pictures per row within a card.
        heat_scale: Text beside the colour scale of heat maps; empty for none.
    """

    cards: Sequence[Card]
    columns: int = 1
    heat_scale: str = ""


@dataclass(frozen=True)
class Texts:
    """Passages, each with its title: (title, text)."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Commands to paste, each with a line that says what it does: (purpose, command)."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Heading, also in the list of contents.
        parts: Instances of the classes above, or charts of :mod:`colipri.reporting.charts`.
        summary: One or two sentences below the heading: what to take away.
        order: Where it stands on the page; the standard sections have 10, 20, ... 90.
    """

    title: str
    parts: Sequence[Any] = field(default_factory=tuple)
    summary: str = ""
    order: int = 30
