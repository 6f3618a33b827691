"""The whole judgement of a model's grounding on a data set, beside the untrained network."""

from __future__ import annotations

import logging
from typing import Any

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.prompts import DEFAULT_STYLE, describe_prompts, is_denial, make_prompts
from colipri.grounding.against_masks import choose_heat_thresholds, finding_maps, judge_maps
from colipri.grounding.embeddings import Embeddings
from colipri.grounding.erased_findings import erase_findings
from colipri.grounding.without_masks import erase_lungs, swap_sides
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import CaseCollection, cases_of_split, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_evaluation import result_head
from colipri.inference.token_maps import SIMILARITY, TokenMaps
from colipri.inference.trained_objectives import places_in_training

logger = logging.getLogger(__name__)


def judge_grounding(
    predictor: ColipriPredictor,
    dataset: int | str,
    split: str = "test",
    *,
    prompt_style: str = DEFAULT_STYLE,
    source: str = "auto",
    control_untrained: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    method: str = SIMILARITY,
) -> dict[str, Any]:
    """Return what ``colipri_grounding`` writes.

    Args:
        predictor: The model.
        dataset: Number or name.
        split: That is evaluated: test or val; of val, thresholds come from train.
        prompt_style: Of the texts.
        source: See ``collect_cases``.
        control_untrained: Everything again with the network before training.
        num_resamples: Of the bootstrap over patients.
        method: Of the heat maps (colipri.inference.token_maps).

    Raises:
        ColipriError: no findings are labelled, there is no such split, or the model has no
            attention.
    """
    TokenMaps(predictor, method)
    collection = collect_cases(predictor, dataset, source)
    names = [name for name in collection.finding_names if not is_denial(name)]
    if not names:
        raise ColipriError(
            f"{collection.dataset} has no findings to look for: cases.csv needs a column per "
            "finding, and dataset.json their names"
        )
    labels = LabelMaps.of_dataset(collection.dataset, predictor.plans.orientation)

    def judge(model: ColipriPredictor) -> dict[str, Any]:
        return _judge(model, collection, labels, names, split, prompt_style, num_resamples, method)

    result = {
        **result_head(predictor, collection, split),
        "prompts": describe_prompts(make_prompts(names, prompt_style), prompt_style),
        "method": method,
        "places_in_training": places_in_training(predictor.checkpoint),
        **judge(predictor),
    }
    if control_untrained:
        logger.info("The same for the untrained network")
        result["controls"] = {"untrained": judge(predictor.untrained())}
    return result


def _judge(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    labels: LabelMaps,
    names: list[str],
    split: str,
    prompt_style: str,
    num_resamples: int,
    method: str,
) -> dict[str, Any]:
    embeddings = Embeddings(predictor)
    prompts = make_prompts(names, prompt_style)
    cases = cases_of_split(collection, split, predictor)
    masks: dict[str, Any] = {}
    if any(labels.knows(case.identifier, name) for case in cases for name in names):
        chooser = "train" if split == "val" else "val"
        thresholds: dict[str, float] = {}
        try:
            others = cases_of_split(collection, chooser, predictor)
            found = list(
                finding_maps(embeddings, others, prompts, labels, f"Maps of {chooser}", method)
            )
            thresholds = choose_heat_thresholds(found)
        except ColipriError as error:
            logger.warning("No threshold, hence no Dice: %s", error)
        maps = finding_maps(embeddings, cases, prompts, labels, f"Maps of {split}", method)
        masks = judge_maps(maps, thresholds, predictor, num_resamples)
        if masks:
            masks["thresholds_from"] = chooser
    return {
        "masks": masks,
        "tests": {
            "sides": swap_sides(embeddings, cases, names, num_resamples),
            "lungs_erased": erase_lungs(embeddings, cases, names, num_resamples),
            "findings_erased": erase_findings(embeddings, cases, names, labels, num_resamples),
        },
    }
