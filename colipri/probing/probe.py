"""The whole protocol: features, sides, every head with its controls, metrics, saved heads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colipri.common.errors import ColipriError
from colipri.common.hashing import json_digest
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import compare_models
from colipri.evaluation.prompts import DEFAULT_STYLE, make_prompts
from colipri.evaluation.zero_shot import encode_prompts, zero_shot_logits
from colipri.features.encoding import EncodingRun, encode_features
from colipri.features.store import KEY_FILE, FeatureStore
from colipri.inference.labelled_cases import CaseCollection, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_evaluation import result_head
from colipri.probing.head_file import SavedHead, save_head
from colipri.probing.inputs import HeadInputs
from colipri.probing.judging import Decisions, case_scores, decide_on_validation, judge
from colipri.probing.label_efficiency import CurveOptions, label_efficiency
from colipri.probing.methods import METHODS, MethodOptions, Trained, train_method
from colipri.probing.selection import Labelled
from colipri.probing.sides import Side, Sides, make_sides

logger = logging.getLogger(__name__)

UNTRAINED, STATISTICS, ZERO_SHOT = "untrained", "statistics", "zero_shot"
DEFAULT_TOKENS = 216
_STATISTICS_NAME = "body size and voxel statistics"


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed and how.

    Attributes:
        methods: Of ``colipri.probing.methods.METHODS``.
        split: That is evaluated.
        label_source: cases or reports.
        findings: Names, or None for all.
        calibration: temperature, isotonic or none.
        method_options: Steps, epochs and the like of the methods.
        curve: Of the label efficiency; None for none.
        control_untrained: Everything again with the network before training.
        num_resamples: Of the bootstrap.
        seed: Of the bootstrap.
        num_tokens: Of the features; None: as they are, or 216 where there are none yet.
        source: See ``collect_cases``.
    """

    methods: Sequence[str] = ("knn", "logistic", "probes", "attentive")
    split: str = "test"
    label_source: str = "cases"
    findings: Sequence[str] | None = None
    calibration: str = "temperature"
    method_options: MethodOptions = field(default_factory=MethodOptions)
    curve: CurveOptions | None = None
    control_untrained: bool = False
    num_resamples: int = NUM_RESAMPLES
    seed: int = 0
    num_tokens: int | None = None
    source: str = "auto"


@dataclass(frozen=True)
class _Encoder:
    """A model, its features of the data set, and where its heads go."""

    predictor: ColipriPredictor
    store: FeatureStore
    heads: Path
    prefix: str = ""

    def labelled(self, side: Side) -> Labelled:
        """Features and labels of a side."""
        return Labelled(HeadInputs(self.store, side.identifiers), side.labels)


def probe_dataset(
    predictor: ColipriPredictor,
    dataset: int | str,
    features: Path,
    heads: Path,
    options: ProbeOptions,
) -> dict[str, Any]:
    """Probe a model on a data set and return what ``colipri_probe`` writes.

    Args:
        predictor: The model.
        dataset: Number or name.
        features: Folder of its features; what is missing is encoded. The untrained control's are
            beside it, in a folder of the same name with _untrained.
        heads: Folder for the heads.
        options: What is probed.

    Raises:
        ColipriError: no labels to learn from, features of another model, a patient on two sides.
    """
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown:
        raise ColipriError(f"unknown method {unknown[0]}; known: {', '.join(METHODS)}")
    collection = collect_cases(predictor, dataset, options.source)
    # first with all cases: mistakes in the labels show before hours of encoding
    _sides(predictor, collection, options, None)
    store = _features(predictor, collection, features, options)
    sides = _sides(predictor, collection, options, store.identifiers())
    encoder = _Encoder(predictor, store, heads, f"{collection.dataset}_")
    result: dict[str, Any] = {
        **result_head(predictor, collection, options.split),
        "features": {"key": store.key, "folder": str(store.folder)},
        "labels": options.label_source,
        "findings": list(sides.findings),
        "left_out_findings": dict(sides.left_out),
        "sides": {side.name: _count(side) for side in (sides.train, sides.val, sides.test)},
        "validation_is": sides.validation_is,
    }
    logits, decisions, methods = _methods(encoder, sides, options)
    controls: dict[str, Any] = {}
    other, cuts, measured = _statistics(encoder, sides, options)
    controls[STATISTICS] = {"name": _STATISTICS_NAME, **measured}
    differences = {
        STATISTICS: {
            method: _difference((other, cuts), (logits[method], decisions[method]), sides, options)
            for method in methods
        }
    }
    if options.control_untrained:
        logger.info("The same for the untrained network")
        untrained = predictor.untrained()
        folder = features.with_name(f"{features.name}_{UNTRAINED}")
        own = _Encoder(
            untrained,
            _features(untrained, collection, folder, options),
            heads,
            f"{collection.dataset}_{UNTRAINED}_",
        )
        before, before_cuts, controls[UNTRAINED] = _methods(own, sides, options)
        differences[UNTRAINED] = {
            method: _difference(
                (before[method], before_cuts[method]),
                (logits[method], decisions[method]),
                sides,
                options,
            )
            for method in methods
        }
    result |= {"methods": methods, "controls": controls, "differences": differences}
    result["best_method"] = best_method(methods)
    if options.curve is not None:
        result["label_efficiency"] = label_efficiency(sides, encoder.labelled, options.curve)
    best = result["best_method"]
    result["case_scores"] = case_scores(logits[best], sides.test, sides.findings, decisions[best])
    return result


def best_method(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the method with a head that is best on validation; the evaluated split has no say."""
    with_heads = {name: entry for name, entry in methods.items() if entry.get("head")}
    return max(with_heads, key=lambda name: float(with_heads[name]["validation"]))


def _sides(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    options: ProbeOptions,
    usable: Sequence[str] | None,
) -> Sides:
    return make_sides(
        predictor,
        collection,
        split=options.split,
        label_source=options.label_source,
        findings=options.findings,
        usable=usable,
    )


def _features(
    predictor: ColipriPredictor, collection: CaseCollection, folder: Path, options: ProbeOptions
) -> FeatureStore:
    """The features of all cases; those that are missing are encoded first."""
    num_tokens = DEFAULT_TOKENS
    if options.num_tokens is not None:
        num_tokens = options.num_tokens
    elif (folder / KEY_FILE).is_file():
        num_tokens = int(FeatureStore(folder).recorded_key()["num_tokens"])
    cases = [collection.cases[name] for name in sorted(collection.cases)]
    store = encode_features(predictor, collection, cases, EncodingRun(folder, num_tokens))
    assert store is not None  # one process encodes all parts
    return store


def _methods(
    encoder: _Encoder, sides: Sides, options: ProbeOptions
) -> tuple[dict[str, np.ndarray], dict[str, Decisions], dict[str, Any]]:
    """Logits on the evaluated split, decisions and results of zero-shot and of every method."""
    logits, decisions, results = {}, {}, {}
    train, val, test = map(encoder.labelled, (sides.train, sides.val, sides.test))
    if encoder.predictor.image_only is None:
        scores = [_zero_shot(encoder.predictor, side, sides.findings) for side in (val, test)]
        judged = _judged(scores, sides, options)
        logits[ZERO_SHOT], decisions[ZERO_SHOT], results[ZERO_SHOT] = judged
    else:
        logger.info("No zero-shot beside the heads: the model is an image encoder alone")
    for method in options.methods:
        logger.info("%s", METHODS[method])
        path = encoder.heads / f"{encoder.prefix}{method}.safetensors"
        run = _run_digest(encoder, sides, options, method)
        trained = train_method(
            method,
            encoder.predictor,
            sides,
            (train, val, test),
            options.method_options,
            (path, run),
        )
        found = _judged([trained.val_logits, trained.test_logits], sides, options)
        logits[method], decisions[method], results[method] = found
        results[method] |= {
            "head": path.name,
            "validation": trained.fitted.score,
            "choice": trained.fitted.choice,
        }
        _save(path, run, method, trained, encoder, sides, decisions[method], results[method])
    return logits, decisions, results


def _statistics(
    encoder: _Encoder, sides: Sides, options: ProbeOptions
) -> tuple[np.ndarray, Decisions, dict[str, Any]]:
    """The control that sees no feature of the encoder."""
    train, val, test = map(encoder.labelled, (sides.train, sides.val, sides.test))
    trained = train_method(
        STATISTICS, encoder.predictor, sides, (train, val, test), options.method_options, None
    )
    logits, decisions, result = _judged([trained.val_logits, trained.test_logits], sides, options)
    return logits, decisions, {**result, "choice": trained.fitted.choice}


def _judged(
    scores: Sequence[np.ndarray], sides: Sides, options: ProbeOptions
) -> tuple[np.ndarray, Decisions, dict[str, Any]]:
    """(validation, evaluated) logits -> evaluated logits, decisions, metrics."""
    val, test = scores
    decisions = decide_on_validation(
        val, sides.val, sides.findings, options.calibration, sides.validation_is
    )
    measured = judge(
        test,
        sides.test,
        sides.findings,
        decisions,
        num_resamples=options.num_resamples,
        seed=options.seed,
    )
    return test, decisions, measured


def _zero_shot(
    predictor: ColipriPredictor, labelled: Labelled, findings: Sequence[str]
) -> np.ndarray:
    positive, negative = encode_prompts(
        make_prompts(findings, DEFAULT_STYLE), predictor.encode_texts
    )
    embeddings = torch.from_numpy(labelled.inputs.vectors("embedding"))
    logits: np.ndarray = zero_shot_logits(
        embeddings, positive, negative, predictor.temperature
    ).numpy()
    return logits


def _difference(
    first: tuple[np.ndarray, Decisions],
    second: tuple[np.ndarray, Decisions],
    sides: Sides,
    options: ProbeOptions,
) -> dict[str, Any]:
    """Second minus first, paired by patient; empty without resamples or with a single patient."""
    if not options.num_resamples or len(set(sides.test.patients)) < 2:
        return {}
    return compare_models(
        first[0],
        second[0],
        sides.test.labels,
        sides.findings,
        patients=sides.test.patients,
        thresholds=(first[1].thresholds, second[1].thresholds),
        num_resamples=options.num_resamples,
        seed=options.seed,
    )


def _save(
    path: Path,
    run: str,
    method: str,
    trained: Trained,
    encoder: _Encoder,
    sides: Sides,
    decisions: Decisions,
    result: Mapping[str, Any],
) -> None:
    predictor = encoder.predictor
    macro = {name: entry for name, entry in result.items() if name.startswith("macro_")}
    about = {
        "run": run,
        "dataset": encoder.store.index["dataset"],
        "model": predictor.describe(),
        "split": sides.test.name,
        "labels": sides.label_source,
        "trained_on": _count(sides.train),
        "judged_on": _count(sides.test),
        "choice": trained.fitted.choice,
        "validation": trained.fitted.score,
        "metrics": macro,
        "per_finding": {
            name: {key: entry[key] for key in ("auroc", "sensitivity", "specificity", "positives")}
            for name, entry in result["per_finding"].items()
        },
    }
    spacing = tuple(predictor.configuration.spacing) if predictor.own_spacing else None
    save_head(
        path,
        SavedHead(
            method,
            trained.fitted.head,
            sides.findings,
            decisions,
            encoder.store.key,
            predictor.source,
            spacing,
            about,
            trained.encoder_weights,
        ),
    )


def _run_digest(encoder: _Encoder, sides: Sides, options: ProbeOptions, method: str) -> str:
    """What a head depends on: the same digest means that it need not be trained again."""
    content = {
        "method": method,
        "key": encoder.store.key,
        "options": asdict(options.method_options),
        "findings": list(sides.findings),
        "sides": [
            [
                side.identifiers,
                [[None if x != x else x for x in row] for row in side.labels.tolist()],
            ]
            for side in (sides.train, sides.val)
        ],
    }
    return json_digest(content, 32)


def _count(side: Side) -> dict[str, int]:
    return {"scans": len(side.cases), "patients": len(set(side.patients))}
