"""Pictures for the report: slices of cases, and heat maps of what texts point at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from colipri.evaluation.html_page import Section
from colipri.evaluation.prompts import DEFAULT_STYLE, PromptPair, make_prompts
from colipri.evaluation.report_data import montage_section
from colipri.evaluation.report_results import heat_map_section
from colipri.evaluation.zero_shot import encode_prompts
from colipri.inference.heatmap import (
    CT_WINDOW,
    overlay_planes,
    slice_planes,
    to_grey,
    token_similarity,
    voxel_map,
)
from colipri.inference.labelled_cases import (
    cases_of_split,
    collect_cases,
    first_split,
    spread,
)
from colipri.inference.reconstruction_pictures import reconstruction_pictures

if TYPE_CHECKING:
    from colipri.inference.labelled_cases import CaseCollection, LabelledCase
    from colipri.inference.predictor import ColipriPredictor
    from colipri.inference.volume import Volume


def picture_sections(
    predictor: ColipriPredictor,
    dataset: int | str,
    *,
    num_cases: int = 6,
    prompt_style: str = DEFAULT_STYLE,
    show_reports: bool = False,
    source: str = "auto",
) -> list[Section]:
    """A montage of training cases, reconstructions, and a heat map for every finding.

    Heat maps show test cases; of a data set without any, validation cases, else training cases.

    Args:
        predictor: The model.
        dataset: Number or name.
        num_cases: In the montage; also the most heat maps.
        prompt_style: Of the texts.
        show_reports: Print the montage's reports beside the images (patients' texts!).
        source: See ``collect_cases``.

    Raises:
        ColipriError: no such data set, or one that the model has no training case of.
    """
    collection = collect_cases(predictor, dataset, source)
    train = cases_of_split(collection, "train", predictor)
    sections = [
        montage_of_cases(spread(train, num_cases), predictor, show_reports=show_reports),
        reconstruction_pictures(predictor, collection),
    ]
    split = first_split(collection, ("test", "val", "train"), predictor)
    maps = heat_maps(predictor, collection, split, prompt_style, num_cases)
    if maps:
        sections.append(heat_map_section(maps, split))
    return sections


def heat_maps(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    split: str,
    prompt_style: str,
    number: int,
) -> list[dict[str, Any]]:
    """One a finding, at most ``number``; none of a model that never compared images with texts."""
    from colipri.objectives.registry import COMPARING

    objectives = (predictor.checkpoint.get("settings") or {}).get("objectives")
    prompts = make_prompts(collection.finding_names, prompt_style)[:number]
    if not prompts or (objectives and not any(name in COMPARING for name in objectives)):
        return []
    judged = cases_of_split(collection, split, predictor)
    return [
        heat_map_card(predictor, case, pair)
        for pair in prompts
        if (case := first_with(judged, pair.finding)) is not None
    ]


def montage_of_cases(
    cases: Sequence[LabelledCase], predictor: ColipriPredictor, *, show_reports: bool = False
) -> Section:
    """The middle coronal slice of every case, as the encoder gets it, with its known findings."""
    slices = []
    for case in cases:
        image, _ = _central(predictor, case.volume())
        middle = [size // 2 for size in image.shape]
        _, plane, step = slice_planes(image, predictor.configuration.raw["spacing"], middle)[1]
        entry = {
            "pixels": to_grey(plane, _window(predictor)),
            "millimetres": step,
            "caption": f"{case.identifier}: {_known(case)}",
        }
        report = case.report() if show_reports else None
        if report is not None:
            entry["report"] = report.text
        slices.append(entry)
    summary = "Training scans as the encoder gets them, middle coronal slice, and their labels."
    return montage_section(slices, summary=summary)


def heat_map_card(
    predictor: ColipriPredictor, case: LabelledCase, pair: PromptPair
) -> dict[str, Any]:
    """Heat of the positive texts minus that of the negative ones, in three planes."""
    volume = case.volume()
    encoded = predictor.encode(volume)
    positive, negative = encode_prompts([pair], predictor.encode_texts)
    similarity = token_similarity(predictor.project(encoded), positive[0, 0], negative[0, 0])
    heat = voxel_map(similarity, encoded.positions, encoded.grid, predictor.token_patch)
    size = [g * p for g, p in zip(encoded.grid, predictor.token_patch, strict=True)]
    image = volume.crop(encoded.start, size)[0][0]
    spacing = predictor.configuration.raw["spacing"]
    planes = overlay_planes(image, heat, spacing, window=_window(predictor))
    return {
        "planes": planes,
        "text": pair.positive[0],
        "case": case.identifier,
        "note": _known(case),
    }


def first_with(cases: Sequence[LabelledCase], finding: str) -> LabelledCase | None:
    """The first case that has the finding: chosen by name, never by how well the model did."""
    return next((case for case in cases if case.findings.get(finding) == 1), None)


def _central(predictor: ColipriPredictor, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    from colipri.preprocessing.body_grid import centre_start

    image, body = volume.crop(
        centre_start(volume.shape, predictor.patch_size), predictor.patch_size
    )
    return image[0], body


def _window(predictor: ColipriPredictor) -> tuple[float, float] | None:
    """HU where Hounsfield units are stored, percentiles otherwise."""
    return CT_WINDOW if predictor.configuration.raw["storage_dtype"] == "int16" else None


def _known(case: LabelledCase) -> str:
    present = [name for name, value in case.findings.items() if value == 1]
    if present:
        return ", ".join(present)
    known = any(value == 0 for value in case.findings.values())
    return "no labelled finding" if known else "not labelled"
