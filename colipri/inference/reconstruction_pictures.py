"""Pictures of masked image modelling for the report: image, what is seen of it, reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.evaluation.html_page import Section
from colipri.evaluation.report_reconstructions import (
    no_reconstruction_section,
    reconstruction_section,
)
from colipri.inference.heatmap import CT_WINDOW, slice_planes, to_grey
from colipri.inference.labelled_cases import cases_of_split, first_split, spread
from colipri.inference.reconstruction import OBJECTIVE, Reconstruction, Reconstructor

if TYPE_CHECKING:
    from colipri.inference.labelled_cases import CaseCollection, LabelledCase
    from colipri.inference.predictor import ColipriPredictor

HIDDEN_COLOUR = (128, 128, 128)
AIR_COLOUR = (16, 24, 56)  # no grey value: not to be taken for a part of the image
_NAMES = ("slice", "visible tokens", "reconstruction")


def reconstruction_pictures(
    predictor: ColipriPredictor, collection: CaseCollection, *, num_cases: int = 4
) -> Section:
    """A few validation cases as the masked decoder reconstructs them; or why there are none.

    Args:
        predictor: Of a checkpoint.
        collection: The data set's cases.
        num_cases: At most.
    """
    reconstructor = Reconstructor.of_predictor(predictor)
    if reconstructor is None:
        settings = predictor.checkpoint.get("settings") or {}
        objectives = settings.get("objectives") or {}
        return no_reconstruction_section(objectives, trained=OBJECTIVE in objectives)
    cases, whose = _cases(predictor, collection)
    entries = [
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
    return reconstruction_section(entries, summary)


def reconstruction_card(found: Reconstruction, reconstructor: Reconstructor) -> dict[str, Any]:
    """Three middle coronal slices of one case, and its error."""
    predictor = reconstructor.predictor
    low, high = _window(predictor, found.image[0])

    def plane(volume: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        middle = [size // 2 for size in volume.shape]
        _, pixels, step = slice_planes(volume, predictor.configuration.raw["spacing"], middle)[1]
        return pixels, step

    hidden, step = plane(found.hidden)
    air, _ = plane(found.air)
    image, told = (
        to_grey(plane(volume[0])[0], (low, high))[..., None].repeat(3, axis=2)
        for volume in (found.image, found.predicted)
    )
    seen = image.copy()
    seen[hidden], seen[air], told[air] = HIDDEN_COLOUR, AIR_COLOUR, AIR_COLOUR
    reference = "each token's own mean" if reconstructor.normalised_target else "the visible mean"
    note = (
        f"mean squared error of hidden voxels {found.error:.3g} in normalised intensities "
        f"({found.control_error:.3g} if they were all {reference})"
    )
    if reconstructor.normalised_target:
        note += "; un-normalised with the true tokens' mean and deviation"
    pictures = [
        {"name": name, "pixels": pixels, "millimetres": step}
        for name, pixels in zip(_NAMES, (image, seen, told), strict=True)
    ]
    return {"pictures": pictures, "case": found.name, "note": note}


def _cases(
    predictor: ColipriPredictor, collection: CaseCollection
) -> tuple[list[LabelledCase], str]:
    """Validation cases, or those of training where a run keeps none for validation."""
    split = first_split(collection, ("val", "train"), predictor)  # fold "all" has no val
    whose = {"val": "validation", "train": "training"}[split]
    return cases_of_split(collection, split, predictor), whose


def _window(predictor: ColipriPredictor, image: np.ndarray) -> tuple[float, float]:
    """Black and white in normalised intensities: of CT_WINDOW, or percentiles of the image."""
    if predictor.configuration.raw["storage_dtype"] != "int16":
        low, high = np.percentile(image, [1, 99])
        return float(low), float(high)
    numbers = predictor.plans.raw["foreground_intensity_properties_per_channel"]["0"]
    low, high = ((edge - numbers["mean"]) / max(numbers["std"], 1e-8) for edge in CT_WINDOW)
    return low, high
