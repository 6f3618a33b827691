"""Sections with pictures: unseen scans with text heat maps, and examples of the training scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import (
    bounding_box_to_slice,
    get_bbox_from_mask,
)

from colipri.common.display import show_sizes
from colipri.common.page_parts import Card, Gallery, Paragraph, Picture, Section
from colipri.evaluation.prompts import DEFAULT_STYLE, PromptPair, is_denial, make_prompts
from colipri.evaluation.zero_shot import encode_prompts
from colipri.inference.heatmap import (
    CT_WINDOW,
    inside_of_body,
    overlay_planes,
    slice_planes,
    strongest_place,
    to_grey,
    token_similarity,
    voxel_map,
)
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import (
    CaseCollection,
    LabelledCase,
    cases_of_split,
    collect_cases,
    first_split,
    spread,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.trained_objectives import places_in_training, trained_objectives
from colipri.inference.volume import Volume
from colipri.preprocessing.body_grid import centre_start

_SPLIT_CASES = {
    "test": "test scans, which played no part in training",
    "val": "validation scans, which were not trained on",
    "train": "scans that were trained on",
}
_SHOWN_PLANES = (0, 1)  # of the three of slice_planes: axial and coronal


@dataclass(frozen=True)
class PictureContext:
    """What sections with pictures are made from.

    Attributes:
        predictor: Of the run's checkpoint.
        collection: The cases of its data set.
        labels: Its label maps.
        prompt_style: Of the texts.
        show_reports: Print reports beside the scans (patients' texts!).
        scores: Case -> finding -> zero-shot score, as the run's result has them.
    """

    predictor: ColipriPredictor
    collection: CaseCollection
    labels: LabelMaps = field(default_factory=LabelMaps)
    prompt_style: str = DEFAULT_STYLE
    show_reports: bool = False
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of_dataset(
        cls, predictor: ColipriPredictor, dataset: int | str, source: str = "auto", **options: Any
    ) -> PictureContext:
        """Make a context with the cases and label maps of a data set.

        Args:
            predictor: The model.
            dataset: Number or name.
            source: See ``collect_cases``.
            options: Other attributes.

        Raises:
            ColipriError: there is no such data set.
        """
        collection = collect_cases(predictor, dataset, source)
        labels = LabelMaps.of_dataset(collection.dataset, predictor.plans.orientation)
        return cls(predictor, collection, labels, **options)

    @property
    def spacing(self) -> Sequence[float]:
        """mm (Superior, Anterior, Right) of the volumes."""
        return self.predictor.configuration.spacing

    @property
    def window(self) -> tuple[float, float] | None:
        """HU where Hounsfield units are stored, percentiles otherwise."""
        return CT_WINDOW if self.predictor.configuration.storage_dtype == "int16" else None

    def report_of(self, case: LabelledCase) -> str:
        """Return the case's report where reports may be shown, else nothing."""
        report = case.report() if self.show_reports and case.has_report else None
        return "" if report is None else report.text


def unseen_scans_section(
    context: PictureContext, *, num_findings: int = 12, order: int = 20
) -> Section | None:
    """Show a heat map for every finding; None for a model that knows no texts.

    Test cases; of a data set without any, validation cases, else training cases. The case is the
    first by name, never chosen by how well the model did.

    Args:
        context: Model and cases.
        num_findings: At most so many cards.
        order: See Section.
    """
    predictor = context.predictor
    objectives = trained_objectives(predictor.checkpoint)
    known_names = context.collection.finding_names
    denials = [name for name in known_names if is_denial(name)]  # "No Finding" is nowhere
    names = [name for name in known_names if name not in denials][:num_findings]
    if not names or (objectives and not any(o.compares for o in objectives.values())):
        return None
    split = first_split(context.collection, ("test", "val", "train"), predictor)
    judged = cases_of_split(context.collection, split, predictor)
    cards, places = [], []
    for pair in make_prompts(names, context.prompt_style):
        case = next((case for case in judged if case.findings.get(pair.finding) == 1), None)
        if case is not None:
            card, place = heat_map_card(context, case, pair)
            cards.append(card)
            places.append(place)
    if not cards:
        return None
    outlined = any(picture.outline is not None for card in cards for picture in card.pictures)
    key = "Left: the scan as the encoder gets it. Right: the same slice with the heat map"
    key += "; blue outline: where the finding truly is" if outlined else ""
    key += ". Seen from the feet and from the front, with the patient's right on the left side."
    key += " The slices go through the middle of the outline" if outlined else ""
    key += (
        ", or through the strongest response." if outlined else " Slices: the strongest response."
    )
    if denials:
        key += f" No map of {', '.join(denials)}: what is absent has no place."
    parts: list[Any] = [Paragraph(key, quiet=True)]
    known = [place for place in places if place is not None]
    if known:
        hits, chance = sum(hit for hit, _ in known), sum(share for _, share in known)
        edges = [p * s for p, s in zip(predictor.token_patch, context.spacing, strict=True)]
        parts.append(
            Paragraph(
                f"The map is as fine as the encoder's tokens, {show_sizes(edges, '.0f')} mm. The "
                f"token with the strongest response holds some of the finding in {hits} of "
                f"{len(known)} scans; tokens drawn at random from the body would in {chance:.1f}."
            )
        )
    scale = "Similarity of the text to each place, low to high; air outside the body is left out."
    parts.append(Gallery(cards, columns=2, heat_scale=scale))
    summary = (
        f"One scan for each finding, the first by name of the {_SPLIT_CASES[split]}, and where the "
        f"text finds it. {places_in_training(predictor.checkpoint)}"
    )
    return Section("Unseen scans" if split != "train" else "Scans and texts", parts, summary, order)


def heat_map_card(
    context: PictureContext, case: LabelledCase, pair: PromptPair
) -> tuple[Card, tuple[bool, float] | None]:
    """Show the heat of the affirming texts minus that of the negating ones beside the scan.

    Args:
        context: predictor and cases of the page.
        case: to show.
        pair: texts that affirm and negate a finding.

    Returns:
        The card, and for a finding with a label map: True if the token with the strongest response
        holds some of it, and the fraction of tokens that do.
    """
    predictor, spacing = context.predictor, context.spacing
    volume = case.volume()
    encoded = predictor.encode(volume)
    positive, negative = encode_prompts([pair], predictor.encode_texts)
    similarity = token_similarity(predictor.project(encoded), positive[0, 0], negative[0, 0])
    size = [g * p for g, p in zip(encoded.grid, predictor.token_patch, strict=True)]
    inside = inside_of_body(volume, encoded.start, size, predictor.plans, predictor.configuration)
    heat = voxel_map(similarity, encoded.positions, encoded.grid, predictor.token_patch, inside)
    image = volume.crop(encoded.start, size)[0][0]
    mask = context.labels.mask(volume, pair.finding, encoded.start, size)
    if mask is not None and not mask.any():
        mask = None
    told = None
    if mask is not None:
        holding = _tokens_holding(mask, predictor.token_patch)
        strongest = tuple(
            voxel // edge
            for voxel, edge in zip(strongest_place(heat), predictor.token_patch, strict=True)
        )
        told = (bool(holding[strongest]), float(holding[tuple(encoded.positions.T)].mean()))
    shown_voxels = np.isfinite(heat) if mask is None else np.isfinite(heat) | mask
    body = bounding_box_to_slice(get_bbox_from_mask(shown_voxels))  # no wide black margins
    image, heat, mask = image[body], heat[body], None if mask is None else mask[body]
    place = strongest_place(heat) if mask is None else _middle_of(mask)
    greys = slice_planes(image, spacing, place)
    heats = overlay_planes(image, heat, spacing, place=place, window=context.window)
    masks = None if mask is None else slice_planes(mask, spacing, place)
    pictures = []
    for index in _SHOWN_PLANES:
        name, plane, step = greys[index]
        outline = None if masks is None else masks[index][1]
        shown = f"{name} slice of {case.identifier}"
        pictures.append(
            Picture(to_grey(plane, context.window), shown, step, outline, name.capitalize())
        )
        heat_text = f"{shown} with the heat map of '{pair.positive[0]}'"
        pictures.append(Picture(heats[index]["pixels"], heat_text, step, outline))
    notes = [case.identifier]
    score = context.scores.get(case.identifier, {}).get(pair.finding)
    if score is not None:
        notes.append(f"zero-shot score {score:.2f}")
    if told is not None:
        notes.append(f"strongest response {'at' if told[0] else 'away from'} the finding")
    notes.append(known_findings(case))
    title = f"\u201c{pair.positive[0]}\u201d"
    return Card(pictures, title, " \u00b7 ".join(notes), context.report_of(case)), told


def training_scans_section(
    context: PictureContext, *, num_cases: int = 6, order: int = 61
) -> Section:
    """Show the middle coronal slice of a few training scans, with their known findings.

    Args:
        context: predictor and cases of the page.
        num_cases: scans to show.
        order: place on the page.
    """
    train = cases_of_split(context.collection, "train", context.predictor)
    cards = []
    for case in spread(train, num_cases):
        image = _central(context.predictor, case.volume())
        middle = [size // 2 for size in image.shape]
        _, plane, step = slice_planes(image, context.spacing, middle)[1]
        shown = Picture(to_grey(plane, context.window), f"Coronal slice of {case.identifier}", step)
        cards.append(Card([shown], case.identifier, known_findings(case), context.report_of(case)))
    summary = "Training scans as the encoder gets them, middle coronal slice, and their labels."
    return Section("Training scans", [Gallery(cards)], summary, order)


def known_findings(case: LabelledCase) -> str:
    """Say in words what is labelled as present."""
    present = [name for name, value in case.findings.items() if value == 1]
    if present:
        return "present: " + ", ".join(present)
    known = any(value == 0 for value in case.findings.values())
    return "no labelled finding is present" if known else "not labelled"


def _central(predictor: ColipriPredictor, volume: Volume) -> np.ndarray:
    """(A0, A1, A2) of the first channel: the patch around the centre."""
    size = predictor.patch_size
    image: np.ndarray = volume.crop(centre_start(volume.shape, size), size)[0][0]
    return image


def _tokens_holding(mask: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """(G0, G1, G2) bool: True where the token holds any voxel of the mask."""
    shape = [n for size, p in zip(mask.shape, patch, strict=True) for n in (size // p, p)]
    return np.asarray(mask.reshape(shape).any(axis=(1, 3, 5)))


def _middle_of(mask: np.ndarray) -> tuple[int, int, int]:
    """Per axis the slice with the most of the finding."""
    a, b, c = (
        int(np.argmax(mask.sum(axis=tuple(other for other in range(3) if other != axis))))
        for axis in range(3)
    )
    return (a, b, c)
