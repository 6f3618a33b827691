"""What the objectives of a run show of themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colipri.architectures.generation import GenerationSettings
from colipri.common.errors import ColipriError
from colipri.common.page_parts import Card, Gallery, Paragraph, Picture, Section
from colipri.inference.checkpoint_heads import Heads
from colipri.inference.heatmap import CT_WINDOW, slice_planes, to_grey
from colipri.inference.labelled_cases import LabelledCase, cases_of_split, first_split, spread
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.reconstruction import objectives_with_pictures, page_parts
from colipri.inference.report_writer import ReportWriter
from colipri.objectives.base import Objective, PagePart
from colipri.reporting.pictures import PictureContext

# Of masks; air has no grey value: not to be taken for a part of the image.
MASK_COLOURS = {"hidden": (128, 128, 128), "air": (16, 24, 56)}


def sections_of_objectives(context: PictureContext) -> list[Section]:
    """Show what the objectives of the run show of themselves, and the reports that they write."""
    sections = [
        picture_section(context, *found) for found in objectives_with_pictures(context.predictor)
    ]
    written = written_reports_section(context)
    return sections if written is None else [*sections, written]


def picture_section(
    context: PictureContext,
    objective: Objective,
    heads: Heads | None,
    *,
    num_cases: int = 4,
    order: int = 31,
) -> Section:
    """Show the volumes that an objective gives of a few validation cases.

    Args:
        context: Model and cases.
        objective: Trained in this run.
        heads: Its modules; None where the checkpoint holds none, which is then said in one line.
        num_cases: At most.
        order: See Section.
    """
    title = objective.page_title
    if heads is None:
        reason = (
            f"This checkpoint holds no {' or '.join(objective.head_names).replace('_', ' ')}: it "
            "was left out when the file was written. The checkpoints of the run itself have it."
        )
        return Section(title, [Paragraph(reason)], "", order)
    cases, whose = _validation_cases(context)
    parts = [
        part
        for case in spread(cases, num_cases)
        for part in page_parts(context.predictor, objective, heads, case.volume())
    ]
    cards = [picture_card(part, context.predictor) for part in parts]
    columns = max((len(part.volumes) for part in parts), default=1)
    summary = f"{objective.title} on {whose} scans: {objective.page_text()}"
    key = Paragraph(f"Middle coronal slice. {objective.page_key()}".strip(), quiet=True)
    return Section(title, [key, Gallery(cards, columns=columns)], summary, order)


def picture_card(part: PagePart, predictor: ColipriPredictor) -> Card:
    """Show the middle coronal slices of the volumes that an objective gives of one case."""
    low, high = _window(predictor, part.volumes[0].image)

    def plane(volume: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        middle = [size // 2 for size in volume.shape]
        _, pixels, step = slice_planes(volume, predictor.configuration.spacing, middle)[1]
        return pixels, step

    pictures = []
    for shown in part.volumes:
        values, step = plane(shown.image)
        pixels = to_grey(values, (low, high))[..., None].repeat(3, axis=2)
        for name, mask in shown.masks.items():
            pixels[plane(mask)[0]] = MASK_COLOURS.get(name, MASK_COLOURS["hidden"])
        title = f"{shown.caption} of {part.case}, coronal slice"
        pictures.append(Picture(pixels, title, step, name=shown.caption))
    return Card(pictures, part.case, part.note)


def _validation_cases(context: PictureContext) -> tuple[Sequence[LabelledCase], str]:
    """Validation cases, or those of training where a run keeps none for validation."""
    predictor = context.predictor
    split = first_split(context.collection, ("val", "train"), predictor)  # fold "all" has no val
    whose = {"val": "validation", "train": "training"}[split]
    return cases_of_split(context.collection, split, predictor), whose


def _window(predictor: ColipriPredictor, image: np.ndarray) -> tuple[float, float]:
    """Black and white in normalised intensities: of CT_WINDOW, or percentiles of the image."""
    if predictor.configuration.storage_dtype != "int16":
        low, high = np.percentile(image, [1, 99])
        return float(low), float(high)
    numbers = predictor.plans.intensities(0)
    low, high = ((edge - numbers.mean) / max(numbers.std, 1e-8) for edge in CT_WINDOW)
    return low, high


def written_reports_section(
    context: PictureContext, *, num_cases: int = 3, order: int = 32
) -> Section | None:
    """Report generation: what the model writes of validation scans.

    Only where reports may be shown: a decoder that knows its training reports by heart writes
    patients' data. None otherwise, and for a checkpoint without a decoder.

    Args:
        context: Model and cases.
        num_cases: At most.
        order: See Section.
    """
    if not context.show_reports:
        return None
    try:
        writer = ReportWriter(context.predictor, GenerationSettings())
    except ColipriError:  # trained without report generation
        return None
    cases, whose = _validation_cases(context)
    cards = []
    for case in spread([case for case in cases if case.has_report] or cases, num_cases):
        volume = case.volume()
        image = volume.crop((0, 0, 0), context.predictor.patch_size)[0][0]
        middle = [size // 2 for size in image.shape]
        _, plane, step = slice_planes(image, context.spacing, middle)[1]
        shown = Picture(to_grey(plane, context.window), f"Coronal slice of {case.identifier}", step)
        text = writer.write(context.predictor.encode(volume))
        cards.append(
            Card([shown], case.identifier, f"The model writes: {text}", context.report_of(case))
        )
    summary = f"Reports that the model writes of {whose} scans, and the true ones to unfold."
    return Section("Written reports", [Gallery(cards)], summary, order)
