"""What the objectives of a run show of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from colipri.architectures.generation import GenerationSettings
from colipri.common.errors import ColipriError
from colipri.common.page_parts import Card, Gallery, Paragraph, Picture, Section
from colipri.inference.heatmap import CT_WINDOW, slice_planes, to_grey
from colipri.inference.labelled_cases import LabelledCase, cases_of_split, first_split, spread
from colipri.inference.reconstruction import OBJECTIVE, Reconstruction, Reconstructor
from colipri.inference.report_writer import ReportWriter
from colipri.reporting.pictures import PictureContext

HIDDEN_COLOUR = (128, 128, 128)
AIR_COLOUR = (16, 24, 56)  # no grey value: not to be taken for a part of the image

PageHook = Callable[[PictureContext], Section | None]


def sections_of_objectives(context: PictureContext, hooks: Iterable[PageHook]) -> list[Section]:
    """The sections that the hooks make; those that have nothing to show return None."""
    found = (hook(context) for hook in hooks)
    return [section for section in found if section is not None]


def reconstruction_section(
    context: PictureContext, *, num_cases: int = 4, order: int = 31
) -> Section | None:
    """Masked image modelling: what the decoder makes of hidden tokens of validation scans.

    One line where the checkpoint holds no decoder; None for a run without the objective.

    Args:
        context: Model and cases.
        num_cases: At most.
        order: See Section.
    """
    predictor = context.predictor
    trained = (predictor.checkpoint.get("settings") or {}).get("objectives") or {}
    if OBJECTIVE not in trained:
        return None
    reconstructor = Reconstructor.of_predictor(predictor)
    if reconstructor is None:
        reason = (
            "This checkpoint holds no masked decoder: it was left out when the file was written. "
            "The checkpoints of the run itself have it."
        )
        return Section("Reconstructions", [Paragraph(reason)], "", order)
    cases, whose = _validation_cases(context)
    cards = [
        reconstruction_card(reconstructor.reconstruct(case.volume()), reconstructor)
        for case in spread(cases, num_cases)
    ]
    objective = reconstructor.objective
    summary = (
        f"Masked image modelling on {whose} scans: {100 * objective.mask_ratio:.0f} % of the "
        f"body's tokens are hidden ({objective.mask} mask)."
    )
    if reconstructor.normalised_target:
        summary += (
            " The model predicts each token normalised by its own mean and standard deviation; for "
            "these pictures the prediction is un-normalised with the true token's, so brightness "
            "and contrast of a token are given, and only its pattern is the model's."
        )
    key = Paragraph(
        "Middle coronal slice. Visible: what the encoder sees; hidden tokens are grey, those of "
        "air are dark blue and neither seen nor predicted. Reconstruction: hidden tokens as the "
        "decoder predicts them, visible ones as they are.",
        quiet=True,
    )
    return Section("Reconstructions", [key, Gallery(cards, columns=3)], summary, order)


def reconstruction_card(found: Reconstruction, reconstructor: Reconstructor) -> Card:
    """Three middle coronal slices of one case, and its error."""
    predictor = reconstructor.predictor
    low, high = _window(reconstructor, found.image[0])

    def plane(volume: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        middle = [size // 2 for size in volume.shape]
        _, pixels, step = slice_planes(volume, predictor.configuration.raw["spacing"], middle)[1]
        return pixels, step

    hidden, step = plane(found.hidden)
    air, _ = plane(found.air)
    image, predicted = (
        to_grey(plane(volume[0])[0], (low, high))[..., None].repeat(3, axis=2)
        for volume in (found.image, found.predicted)
    )
    seen = image.copy()
    seen[hidden], seen[air], predicted[air] = HIDDEN_COLOUR, AIR_COLOUR, AIR_COLOUR
    reference = "each token's own mean" if reconstructor.normalised_target else "the visible mean"
    note = (
        f"mean squared error of hidden voxels {found.error:.3g} in normalised intensities "
        f"({found.control_error:.3g} if they were all {reference})"
    )
    if reconstructor.normalised_target:
        note += "; un-normalised with the true tokens' mean and deviation"
    names = ("Scan", "Visible", "Reconstruction")
    pictures = [
        Picture(pixels, f"{name} of {found.name}, coronal slice", step, name=name)
        for name, pixels in zip(names, (image, seen, predicted), strict=True)
    ]
    return Card(pictures, found.name, note)


def _validation_cases(context: PictureContext) -> tuple[Sequence[LabelledCase], str]:
    """Validation cases, or those of training where a run keeps none for validation."""
    predictor = context.predictor
    split = first_split(context.collection, ("val", "train"), predictor)  # fold "all" has no val
    whose = {"val": "validation", "train": "training"}[split]
    return cases_of_split(context.collection, split, predictor), whose


def _window(reconstructor: Reconstructor, image: np.ndarray) -> tuple[float, float]:
    """Black and white in normalised intensities: of CT_WINDOW, or percentiles of the image."""
    predictor = reconstructor.predictor
    if predictor.configuration.raw["storage_dtype"] != "int16":
        low, high = np.percentile(image, [1, 99])
        return float(low), float(high)
    numbers = predictor.plans.raw["foreground_intensity_properties_per_channel"]["0"]
    low, high = ((edge - numbers["mean"]) / max(numbers["std"], 1e-8) for edge in CT_WINDOW)
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


# The objectives that show something; a page asks each of them.
PAGE_HOOKS: tuple[PageHook, ...] = (reconstruction_section, written_reports_section)
