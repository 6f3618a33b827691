"""The page of ``colipri_retrieve --index``: found scans with slices, heat maps and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.common.page_parts import Card, Gallery, Paragraph, Picture, Section, Table
from colipri.inference.heatmap import CT_WINDOW, slice_planes, to_grey
from colipri.inference.heatmap_files import heat_maps
from colipri.inference.inputs import ImageInput
from colipri.inference.predictor import ColipriPredictor
from colipri.reporting.heatmap_page import heat_card
from colipri.reporting.page import build_page
from colipri.retrieval.search import Hit


@dataclass(frozen=True)
class Found:
    """A query and what it found.

    Attributes:
        query: text, or the path of an image.
        is_text: False for an image, for which there is no heat map.
        hits: best first.
    """

    query: str
    is_text: bool
    hits: Sequence[Hit]


def retrieval_page(
    output: Path, predictor: ColipriPredictor, results: Sequence[Found], pictures: int
) -> Path:
    """Write one self-contained page.

    Args:
        output: the file.
        predictor: the model; it reads and encodes the scans that are shown.
        results: per query.
        pictures: scans per query that are shown with slices.

    Raises:
        ColipriError: the file cannot be written.
    """
    sections = [
        _section(predictor, found, pictures, number) for number, found in enumerate(results)
    ]
    return build_page(output, sections, title="Found scans", subtitle=predictor.source)


def _section(predictor: ColipriPredictor, found: Found, pictures: int, number: int) -> Section:
    cards, problems = [], []
    for rank, hit in enumerate(found.hits[:pictures], start=1):
        try:
            card = _card(predictor, found, hit)
        except ColipriError as error:
            problems.append(f"{hit.entry.name} cannot be shown: {error}")
            continue
        caption = f"{rank}. {hit.entry.name} \u00b7 similarity {hit.similarity:.3f}"
        facts = [f"{name} {value}" for name, value in hit.entry.facts.items() if value]
        text = hit.entry.report
        cards.append(replace(card, caption=" \u00b7 ".join([caption, *facts]), text=text))
    rows = [
        [str(rank), hit.entry.name, f"{hit.similarity:.4f}", hit.entry.files[0]]
        for rank, hit in enumerate(found.hits, start=1)
    ]
    parts = [
        Table(["", "scan", "similarity", "file"], rows, numeric=(2,), title="All that were found"),
        *(Paragraph(problem, quiet=True) for problem in problems),
    ]
    if cards:
        parts.insert(0, Gallery(cards, columns=2))
    return Section(f"\u201c{found.query}\u201d", parts, "", 30 + number)


def _card(predictor: ColipriPredictor, found: Found, hit: Hit) -> Card:
    image = ImageInput(hit.entry.name, tuple(Path(file) for file in hit.entry.files))
    spacing = predictor.configuration.spacing
    window = CT_WINDOW if predictor.configuration.storage_dtype == "int16" else None
    if found.is_text:
        (heat,) = heat_maps(predictor, image, [found.query])
        return heat_card(heat, spacing, window, hit.entry.name)
    volume = predictor.prepare(image)
    middle = [size // 2 for size in volume.shape]
    planes = slice_planes(volume.array[0], spacing, middle)
    pictures = [
        Picture(
            to_grey(grey, window),
            f"{plane} slice of {hit.entry.name}",
            step,
            None,
            plane.capitalize(),
        )
        for plane, grey, step in planes[:2]
    ]
    return Card(pictures, hit.entry.name)
