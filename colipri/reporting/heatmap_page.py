"""The page of ``colipri_heatmap``: slices of a scan with and without the heat of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice, get_bbox_from_mask

from colipri.common.display import show_sizes
from colipri.common.page_parts import Card, Gallery, Paragraph, Picture, Section
from colipri.inference.heatmap import (
    CT_WINDOW,
    overlay_planes,
    slice_planes,
    strongest_place,
    to_grey,
)
from colipri.inference.heatmap_files import HeatMap
from colipri.inference.predictor import ColipriPredictor
from colipri.reporting.page import build_page

_LEVELS = 9  # axial slices that show a map from top to bottom
_SCALE = "less like the text than the scan's middle to most like it"


def heatmap_page(
    output: Path, predictor: ColipriPredictor, scans: Sequence[tuple[str, Sequence[HeatMap]]]
) -> Path:
    """Write one self-contained page of all scans.

    Args:
        output: the file.
        predictor: the model, named on the page.
        scans: name and heat maps of each.

    Raises:
        ColipriError: the file cannot be written.
    """
    configuration = predictor.configuration
    window = CT_WINDOW if configuration.storage_dtype == "int16" else None
    sections = [
        _section(name, maps, configuration.spacing, window, number)
        for number, (name, maps) in enumerate(scans)
    ]
    subtitle = f"{predictor.source}, {show_sizes(configuration.spacing)} mm"
    return build_page(output, sections, title="Heat maps", subtitle=subtitle)


def heat_card(
    heat: HeatMap, spacing: Sequence[float], window: tuple[float, float] | None, name: str
) -> Card:
    """Show axial, coronal and sagittal slices through the strongest place.

    Args:
        heat: of one scan and one text.
        spacing: mm of its voxels.
        window: intensities shown black and white; None: by percentiles.
        name: of the scan.
    """
    image, values = _without_margins(heat)
    place = strongest_place(values)
    pictures = []
    for (plane, grey, step), over in zip(
        slice_planes(image, spacing, place),
        overlay_planes(image, values, spacing, place=place, window=window),
        strict=True,
    ):
        shown = f"{plane} slice of {name}"
        pictures.append(Picture(to_grey(grey, window), shown, step, None, plane.capitalize()))
        with_heat = f"{shown} with the heat map of '{heat.positive[0]}'"
        pictures.append(Picture(over["pixels"], with_heat, step))
    caption = f"{name} \u00b7 zero-shot score {heat.probability:.2f}"
    return Card(pictures, f"\u201c{heat.positive[0]}\u201d", caption)


def _section(
    name: str,
    maps: Sequence[HeatMap],
    spacing: Sequence[float],
    window: tuple[float, float] | None,
    number: int,
) -> Section:
    cards = [heat_card(heat, spacing, window, name) for heat in maps]
    levels = [_levels(heat, spacing, window, name) for heat in maps]
    note = (
        "Cosine of each place to the affirming text minus that to the negating one, on the scan's "
        "own scale. A map shows what the embedding is made of; it is no segmentation, and the "
        "strongest place of a scan without the finding means nothing. The patient's right is on "
        "the left."
    )
    parts = [Paragraph(note, quiet=True), Gallery(cards, columns=2, heat_scale=_SCALE)]
    return Section(name, [*parts, Gallery(levels, columns=3)], "", 30 + number)


def _levels(
    heat: HeatMap, spacing: Sequence[float], window: tuple[float, float] | None, name: str
) -> Card:
    """Axial slices from top to bottom, on one colour scale."""
    image, values = _without_margins(heat)
    low, high = (float(value) for value in np.nanpercentile(values, [50, 99.8]))
    centre = [size // 2 for size in image.shape]
    pictures = []
    for level in np.linspace(image.shape[0] - 1, 0, min(_LEVELS, image.shape[0])).round():
        place = (int(level), centre[1], centre[2])
        axial = overlay_planes(
            image, values, spacing, place=place, window=window, limits=(low, high)
        )[0]
        above = f"{level * spacing[0]:.0f} mm"
        shown = f"axial slice of {name} with the heat map, {above} above the lowest"
        pictures.append(Picture(axial["pixels"], shown, axial["millimetres"], None, above))
    return Card(pictures, f"{heat.finding}, from top to bottom", name)


def _without_margins(heat: HeatMap) -> tuple[np.ndarray, np.ndarray]:
    """Scan and map, cut to the body."""
    inside = bounding_box_to_slice(get_bbox_from_mask(np.isfinite(heat.heat)))
    return heat.image()[inside], heat.heat[inside]
