"""Heat maps against label maps: Dice, hit rate, pointing game, slice error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from colipri.common.display import progress
from colipri.evaluation.prompts import PromptPair
from colipri.evaluation.zero_shot import encode_prompts
from colipri.grounding.embeddings import Embeddings
from colipri.grounding.intervals import macro_estimate, mean_estimate
from colipri.grounding.place_metrics import (
    HIT_DICE,
    PlaceScores,
    candidate_thresholds,
    dice_at,
    place_scores,
)
from colipri.inference.heatmap import inside_of_body, voxel_map
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import LabelledCase
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.token_maps import SIMILARITY, TokenMaps

_MEASURES = {
    "pointing": True,
    "near": True,
    "chance": False,
    "slice_error": False,
    "chance_slice_error": False,
}


@dataclass(frozen=True)
class FindingMap:
    """The heat map of a finding that a scan has, and where the finding is.

    Attributes:
        case, patient, finding: Whose.
        heat: Values, NaN where no answer is possible.
        mask: Where the finding is, the same shape.
    """

    case: str
    patient: str
    finding: str
    heat: np.ndarray
    mask: np.ndarray


@dataclass
class _Collected:
    """Scores of one finding."""

    patients: list[str] = field(default_factory=list)
    scores: list[PlaceScores] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)


def finding_maps(
    embeddings: Embeddings,
    cases: Sequence[LabelledCase],
    prompts: Sequence[PromptPair],
    labels: LabelMaps,
    description: str,
    method: str = SIMILARITY,
) -> Iterator[FindingMap]:
    """Yield a map for every finding that a case has and that its label map shows in the crop.

    Args:
        embeddings: Of the model; it keeps those of the scans.
        cases: Of a split; those without a label map are not encoded.
        prompts: Of the findings.
        labels: The label maps.
        description: Of the progress bar.
        method: Of colipri.inference.token_maps.

    Raises:
        ColipriError: The model has no attention.
    """
    predictor = embeddings.predictor
    token_maps = TokenMaps(predictor, method)
    positive, negative = encode_prompts(prompts, predictor.encode_texts)
    chosen = [case for case in cases if _present(case, prompts, labels)]
    encoded = predictor.encode_many(case.volume for case in chosen)
    for case, image in zip(chosen, progress(encoded, description, len(chosen)), strict=True):
        embeddings.keep(image)
        volume = case.volume()
        size = [g * p for g, p in zip(image.grid, predictor.token_patch, strict=True)]
        inside = inside_of_body(volume, image.start, size, predictor.plans, predictor.configuration)
        values = token_maps.of(image, positive[:, 0], negative[:, 0])
        for index in _present(case, prompts, labels):
            finding = prompts[index].finding
            mask = labels.mask(volume, finding, image.start, size)
            if mask is None or not mask.any():
                continue
            heat = voxel_map(
                values[index], image.positions, image.grid, predictor.token_patch, inside
            )
            yield FindingMap(case.identifier, case.subject, finding, heat, mask)


def _present(case: LabelledCase, prompts: Sequence[PromptPair], labels: LabelMaps) -> list[int]:
    return [
        index
        for index, pair in enumerate(prompts)
        if case.findings.get(pair.finding) == 1 and labels.knows(case.identifier, pair.finding)
    ]


def choose_heat_thresholds(maps: Sequence[FindingMap]) -> dict[str, float]:
    """Choose the threshold of the highest mean Dice per finding, on validation maps.

    Args:
        maps: Of the validation split; a finding without any has no threshold.
    """
    chosen = {}
    for finding in dict.fromkeys(one.finding for one in maps):
        own = [one for one in maps if one.finding == finding]
        candidates = candidate_thresholds([one.heat for one in own])
        mean = np.mean([dice_at(one.heat, one.mask, candidates) for one in own], axis=0)
        chosen[finding] = float(candidates[int(mean.argmax())])
    return chosen


def judge_maps(
    maps: Iterator[FindingMap],
    thresholds: Mapping[str, float],
    predictor: ColipriPredictor,
    num_resamples: int,
) -> dict[str, Any]:
    """Measure maps of the evaluated split.

    Args:
        maps: Each is read once.
        thresholds: Finding -> threshold from validation.
        predictor: Gives spacing and token size.
        num_resamples: Of the bootstrap over patients.

    Returns:
        ``macro_<measure>`` and ``per_finding``: dice and hit_rate (Dice at least 0.1) at the
        validation threshold, pointing, near (within a token), their chance, slice_error and its
        chance in mm; ``maps``, how many were judged. Empty if there is none.
    """
    spacing = predictor.configuration.spacing
    token_mm = float(max(n * s for n, s in zip(predictor.token_patch, spacing, strict=True)))
    found: dict[str, _Collected] = {}
    for one in maps:
        entry = found.setdefault(one.finding, _Collected())
        entry.patients.append(one.patient)
        entry.scores.append(place_scores(one.heat, one.mask, spacing, token_mm))
        if one.finding in thresholds:
            cut = np.array([thresholds[one.finding]])
            entry.dice.append(float(dice_at(one.heat, one.mask, cut)[0]))
    if not found:
        return {}
    values: dict[str, dict[str, list[float]]] = {
        measure: {name: [float(getattr(s, measure)) for s in e.scores] for name, e in found.items()}
        for measure in _MEASURES
    }
    values["dice"] = {name: entry.dice for name, entry in found.items()}
    values["hit_rate"] = {n: [float(d >= HIT_DICE) for d in e.dice] for n, e in found.items()}
    patients = {name: entry.patients for name, entry in found.items()}
    result: dict[str, Any] = {
        f"macro_{measure}": macro_estimate(by_finding, patients, num_resamples)
        for measure, by_finding in values.items()
    }
    rates = {"pointing", "near", "hit_rate"}
    result["per_finding"] = {
        name: {
            measure: mean_estimate(
                by_finding[name], patients[name], num_resamples, rate=measure in rates
            )
            for measure, by_finding in values.items()
        }
        for name in found
    }
    result["maps"] = sum(len(entry.scores) for entry in found.values())
    result["thresholds"] = dict(thresholds)
    result["without_threshold"] = [name for name in found if name not in thresholds]
    return result
