"""One self-contained HTML page: no script, no font, no image and no style from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import colipri
from colipri.evaluation.html_parts import Html, element, join, paragraph
from colipri.evaluation.html_style import STYLE

# Nothing is loaded or run, even if text from a data set should slip through as markup one day.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NOTICE = "Research software. Not a medical device; not for diagnosis or treatment."


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Heading, also in the list of contents.
        content: Markup, made with :mod:`colipri.evaluation.html_parts` (which escapes).
        summary: One or two sentences below the heading: what to take away.
        order: Where it stands on the page; the standard sections have 10, 20, ... 90.
    """

    title: str
    content: Html
    summary: str = ""
    order: int = 80


@dataclass(frozen=True)
class KeyNumber:
    """One of the few figures at the top: what it is, its value, and what to hold it against."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PageHead:
    """Title, one line below it, and the key numbers."""

    title: str
    subtitle: str = ""
    numbers: tuple[KeyNumber, ...] = field(default_factory=tuple)


def render_page(head: PageHead, sections: Sequence[Section]) -> str:
    """The whole document as text."""
    ordered = sorted(sections, key=lambda section: section.order)
    anchors = _anchors([section.title for section in ordered])
    meta = join(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="generator", content=f"colipri {colipri.__version__}"),
            element("title", head.title),
            element("style", Html(STYLE)),
        ]
    )
    body = join(
        [
            _header(head),
            _contents(ordered, anchors),
            element("main", *map(_section, ordered, anchors)),
            _footer(),
        ]
    )
    page = element("html", element("head", meta), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _header(head: PageHead) -> Html:
    numbers = [
        element(
            "div",
            element("dt", number.name),
            element("dd", number.value),
            element("dd", number.note, class_="note") if number.note else None,
        )
        for number in head.numbers
    ]
    return element(
        "header",
        paragraph("colipri", class_="brand"),
        element("h1", head.title),
        paragraph(head.subtitle, class_="subtitle") if head.subtitle else None,
        element("dl", *numbers, class_="numbers") if numbers else None,
    )


def _contents(sections: Sequence[Section], anchors: Sequence[str]) -> Html:
    links = [
        element("li", element("a", section.title, href=f"#{anchor}"))
        for section, anchor in zip(sections, anchors, strict=True)
    ]
    return element("nav", element("ol", *links), aria_label="Contents")


def _section(section: Section, anchor: str) -> Html:
    return element(
        "section",
        element("h2", section.title),
        paragraph(section.summary, class_="summary") if section.summary else None,
        section.content,
        id=anchor,
    )


def _footer() -> Html:
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return element(
        "footer",
        paragraph(f"Written by colipri {colipri.__version__} on {written}. {NOTICE}"),
    )


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
