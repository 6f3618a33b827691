"""The evaluation protocol on a split: thresholds from another split, the untrained control."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import compare_models
from colipri.evaluation.prompts import DEFAULT_STYLE, PromptPair, describe_prompts, make_prompts
from colipri.inference.labelled_cases import (
    CaseCollection,
    LabelledCase,
    cases_of_split,
    collect_cases,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_results import (
    Thresholds,
    encode_split,
    logits_in,
    retrieval_result,
    thresholds_from_file,
    thresholds_from_split,
    zero_shot_result,
)

logger = logging.getLogger(__name__)


def zero_shot_on_split(
    predictor: ColipriPredictor,
    dataset: int | str,
    split: str = "test",
    *,
    prompt_style: str = DEFAULT_STYLE,
    findings: Sequence[str] | None = None,
    thresholds_from: str = "val",
    control_untrained: bool = False,
    source: str = "auto",
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the whole protocol and return what ``colipri_zero_shot -d`` writes.

    Args:
        predictor: The model.
        dataset: Number or name; need not be the one trained on.
        split: To be evaluated.
        prompt_style: A built-in style or a JSON file.
        findings: Some of the data set's; default: all.
        thresholds_from: "val", "train", "none", or a JSON file of an earlier result.
        control_untrained: Also evaluate the same network before training, paired.
        source: See ``collect_cases``.
        num_resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the resamples.

    Raises:
        ColipriError: no such data set or split, no labels, unknown findings, thresholds from the
            split that is evaluated.
    """
    if thresholds_from == split:
        raise ColipriError(
            f"thresholds may not be chosen on the split that is evaluated ('{split}'); use "
            "--thresholds_from with another split, a file or none"
        )
    collection = collect_cases(predictor, dataset, source)
    prompts = make_prompts(_chosen_findings(collection, findings), prompt_style)
    cases = cases_of_split(collection, split, predictor)
    chosen = _threshold_cases(collection, thresholds_from, predictor)

    def judge(model: ColipriPredictor) -> dict[str, Any]:
        encoded = encode_split(model, cases, split)
        cuts = _thresholds(model, collection, chosen, thresholds_from, prompts)
        return zero_shot_result(
            model, encoded, prompts, cuts, num_resamples=num_resamples, seed=seed
        )

    result = {
        **result_head(predictor, collection, split),
        "prompts": describe_prompts(prompts, prompt_style),
        **judge(predictor),
    }
    if control_untrained:
        logger.info("The same for the untrained network")
        add_control(result, "untrained", judge(predictor.untrained()), num_resamples, seed)
    return result


def retrieval_on_split(
    predictor: ColipriPredictor,
    dataset: int | str,
    split: str = "test",
    *,
    control_untrained: bool = False,
    source: str = "auto",
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure retrieval in both directions and return what ``colipri_retrieve -d`` writes.

    Args:
        predictor: The model.
        dataset: Number or name; need not be the one trained on.
        split: To be evaluated.
        control_untrained: Also evaluate the same network before training.
        source: See ``collect_cases``.
        num_resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the resamples.

    Raises:
        ColipriError: no such data set or split, or fewer than two reports in it.
    """
    collection = collect_cases(predictor, dataset, source)
    cases = [case for case in cases_of_split(collection, split, predictor) if case.has_report]
    if len(cases) < 2:
        raise ColipriError(
            f"the split '{split}' of {collection.dataset} has {len(cases)} cases with a report; "
            "retrieval needs at least two"
        )

    def judge(model: ColipriPredictor) -> dict[str, Any]:
        encoded = encode_split(model, cases, split)
        return retrieval_result(model, encoded, num_resamples=num_resamples, seed=seed)

    result = {**result_head(predictor, collection, split), **judge(predictor)}
    if control_untrained:
        logger.info("The same for the untrained network")
        result["controls"] = {"untrained": judge(predictor.untrained())}
    return result


def result_head(
    predictor: ColipriPredictor, collection: CaseCollection, split: str
) -> dict[str, Any]:
    """Return what a result file records about model and data.

    Args:
        predictor: The model.
        collection: The cases.
        split: That is evaluated.
    """
    return {
        "model": predictor.describe(),
        "dataset": collection.dataset,
        "split": split,
        "images_from": collection.source,
    }


def add_control(
    result: dict[str, Any], name: str, control: dict[str, Any], num_resamples: int, seed: int = 0
) -> None:
    """Put a control's metrics into a result, and the paired difference (result minus control).

    Args:
        result: Of :func:`zero_shot_on_split`; changed in place.
        name: Of the control.
        control: Its metrics on the same cases.
        num_resamples: Of the bootstrap; 0 for no difference.
        seed: Of the resamples.
    """
    names = list(result["per_finding"])
    logits, labels, patients = logits_in(result, names)
    other, _, _ = logits_in(control, names)
    result.setdefault("controls", {})[name] = {
        key: value for key, value in control.items() if key != "case_scores"
    }
    if len(set(patients)) > 1 and num_resamples:
        result.setdefault("differences", {})[name] = compare_models(
            other,
            logits,
            labels,
            names,
            patients=patients,
            thresholds=(control["thresholds"]["logits"], result["thresholds"]["logits"]),
            num_resamples=num_resamples,
            seed=seed,
        )


def _chosen_findings(collection: CaseCollection, wanted: Sequence[str] | None) -> list[str]:
    known = collection.finding_names
    if not known:
        raise ColipriError(
            f"{collection.dataset} has no findings: cases.csv needs a column per finding, and "
            "dataset.json their names; without labels use -i"
        )
    if wanted is None:
        return known
    by_lower = {name.lower(): name for name in known}
    unknown = [name for name in wanted if name.lower() not in by_lower]
    if unknown:
        raise ColipriError(
            f"{collection.dataset} has no labels for {', '.join(unknown)}; it has "
            f"{', '.join(known)}. For findings in free words use -i"
        )
    return [by_lower[name.lower()] for name in wanted]


def _threshold_cases(
    collection: CaseCollection, thresholds_from: str, predictor: ColipriPredictor
) -> list[LabelledCase]:
    """Labelled cases of the split that gives the thresholds; empty where there are none."""
    if thresholds_from not in ("val", "train"):
        return []
    try:
        cases = cases_of_split(collection, thresholds_from, predictor)
    except ColipriError as error:
        logger.warning("No thresholds, hence no F1 and the like: %s", error)
        return []
    return cases


def _thresholds(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    cases: Sequence[LabelledCase],
    thresholds_from: str,
    prompts: Sequence[PromptPair],
) -> Thresholds | None:
    names = [pair.finding for pair in prompts]
    if cases:
        encoded = encode_split(predictor, cases, thresholds_from)
        return thresholds_from_split(predictor, encoded, prompts, collection.dataset)
    if thresholds_from in ("none", "val", "train"):
        return None
    return thresholds_from_file(thresholds_from, names)
