"""Run a frozen benchmark and put the published values beside ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.evaluation.classification import DECISION_METRICS, classification_metrics
from colipri.evaluation.retrieval import case_ranks, retrieval_metrics
from colipri.evaluation.thresholds import choose_thresholds
from colipri.features.embeddings import encoded_cases
from colipri.frozen_benchmarks.definition import Benchmark
from colipri.frozen_benchmarks.population import check_counts, check_findings, select_population
from colipri.frozen_benchmarks.scoring import (
    benchmark_logits,
    combine,
    decision_margins,
    field_figures,
    pool_recall,
    scored_logits,
)
from colipri.inference.labelled_cases import (
    CaseCollection,
    cases_of_split,
    collect_cases,
    label_matrix,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.split_results import (
    EncodedSplit,
    Thresholds,
    case_scores,
    thresholds_from_file,
)
from colipri.text.prompts.captions import full_caption
from colipri.text.prompts.same_text import text_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkOptions:
    """How a benchmark is run.

    Attributes:
        source: See ``collect_cases``.
        features: Folder of ``colipri_encode -d``; None encodes now.
        thresholds_from: A file of an earlier result; None: the validation split, where the model
            has one in this data set.
        allow_other_counts: Go on with another population.
        num_resamples: Of the bootstrap.
        seed: Of resamples and pools.
    """

    source: str = "auto"
    features: Path | None = None
    thresholds_from: str | None = None
    allow_other_counts: bool = False
    num_resamples: int = NUM_RESAMPLES
    seed: int = 0


def run_benchmark(
    benchmark: Benchmark,
    predictor: ColipriPredictor,
    dataset: int | str,
    options: BenchmarkOptions | None = None,
) -> dict[str, Any]:
    """Run a benchmark on a converted data set.

    Args:
        benchmark: The definition.
        predictor: The model.
        dataset: Number or name.
        options: How.

    Returns:
        ``benchmark``, ``model``, ``population``, ``results`` (prompt style -> figures, with the
        scores of every case), ``retrieval``, ``pools``, ``published``.

    Raises:
        ColipriError: another population, missing labels, features of another model.
    """
    options = options or BenchmarkOptions()
    collection = collect_cases(predictor, dataset, options.source)
    check_findings(benchmark, collection)
    cases = select_population(benchmark, collection, predictor)
    population = check_counts(benchmark, cases, options.allow_other_counts)
    encoded = encoded_cases(predictor, cases, benchmark.name, options.features)
    result: dict[str, Any] = {
        "benchmark": {
            "name": benchmark.name,
            "version": benchmark.version,
            "digest": benchmark.digest,
        },
        "model": predictor.describe(),
        "dataset": collection.dataset,
        "population": population,
        "results": {},
    }
    if "zero_shot" in benchmark.tasks:
        validation = _validation(benchmark, collection, predictor, options)
        for style in benchmark.prompts:
            result["results"][style] = _zero_shot(
                benchmark, predictor, encoded, style, validation, options
            )
    if {"retrieval", "pools"} & set(benchmark.tasks):
        result |= _retrieval(benchmark, predictor, encoded, options)
    result["published"] = compare_with_published(benchmark, result)
    return result


def compare_with_published(benchmark: Benchmark, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the published values, each beside ours, and why they cannot be compared like for like.

    Args:
        benchmark: The definition.
        result: Of :func:`run_benchmark`.
    """
    general = []
    if not result["population"]["is_complete"]:
        general.append("another population than the benchmark's")
    rows = []
    for entry in benchmark.published:
        ours = _our_value(result, entry.metric, benchmark.prompts)
        differs = [*general, *entry.differs]
        rows.append(
            {
                "who": entry.who,
                "metric": entry.metric,
                "published": entry.value,
                "ours": ours,
                "source": entry.source,
                "protocol": entry.protocol,
                "like_for_like": not differs,
                "differs": differs,
            }
        )
    return rows


def _our_value(
    result: Mapping[str, Any], metric: str, styles: Sequence[str]
) -> dict[str, Any] | None:
    """Our figure of this name; of several prompt styles the first."""
    if "." in metric:
        direction, _, name = metric.partition(".")
        found = result.get("retrieval", {}).get(direction, {}).get(name)
        return dict(found) if found is not None else None
    found = result["results"].get(styles[0], {}).get(metric)
    return {key: found[key] for key in ("value", "low", "high")} if found is not None else None


def _validation(
    benchmark: Benchmark,
    collection: CaseCollection,
    predictor: ColipriPredictor,
    options: BenchmarkOptions,
) -> EncodedSplit | None:
    """The cases that give thresholds; None where there are none, or where a file gives them."""
    if options.thresholds_from is not None or benchmark.population.split in ("all", "val"):
        return None
    try:
        cases = cases_of_split(collection, "val", predictor)
    except ColipriError as error:
        logger.warning("No thresholds, hence no F1 and the like: %s", error)
        return None
    return encoded_cases(predictor, cases, "val", options.features)


def _zero_shot(
    benchmark: Benchmark,
    predictor: ColipriPredictor,
    encoded: EncodedSplit,
    style: str,
    validation: EncodedSplit | None,
    options: BenchmarkOptions,
) -> dict[str, Any]:
    names = benchmark.findings
    scored = scored_logits(benchmark, predictor, encoded.embeddings, style)
    logits = combine(scored, benchmark.scored_findings(), names, benchmark.combine)
    labels = label_matrix(encoded.cases, names)
    thresholds: dict[str, float | None] = {}
    source = "none"
    if options.thresholds_from is not None:
        given = _thresholds_of_file(benchmark, options.thresholds_from, style)
        thresholds, source = dict(given.logits), given.source
    elif validation is not None:
        chosen = benchmark_logits(benchmark, predictor, validation.embeddings, style)
        thresholds = choose_thresholds(chosen, label_matrix(validation.cases, names), names)
        source = f"validation split, {len(validation.cases)} cases, maximum F1"
    judge = partial(
        classification_metrics,
        labels=labels,
        finding_names=names,
        patients=encoded.subjects,
        num_resamples=options.num_resamples,
        seed=options.seed,
    )
    result = judge(logits, thresholds=thresholds)
    if not set(names) <= set(thresholds) and thresholds:
        margins = decision_margins(scored, benchmark.scored_findings(), thresholds, benchmark)
        _take_decisions(result, judge, margins, names)
        source += "; a combined finding is predicted where any of its parts is"
    result |= field_figures(logits, labels)
    result["thresholds"] = {"source": source, "logits": thresholds}
    result["case_scores"] = case_scores(encoded, names, logits, labels)
    return result


def _thresholds_of_file(benchmark: Benchmark, path: str, style: str) -> Thresholds:
    """Thresholds of the findings, or of the parts of combined ones: CT-RATE's result knows the two
    wall calcifications, RAD-ChestCT's label is one of both.
    """
    try:
        return thresholds_from_file(path, list(benchmark.findings), style)
    except ColipriError:
        if not benchmark.combine:
            raise
        return thresholds_from_file(path, benchmark.scored_findings(), style)


def _take_decisions(
    result: dict[str, Any],
    judge: Callable[..., dict[str, Any]],
    margins: np.ndarray,
    names: Sequence[str],
) -> None:
    """Replace all figures that depend on a threshold by those of the margins.

    Args:
        result: Of the highest logits; AUROC and AUPRC stay.
        judge: Scores -> figures.
        margins: (n, F) above the threshold; NaN without a decision.
        names: F.
    """
    known = np.isfinite(margins).all(axis=0).tolist()
    cuts = {name: 0.0 if there else None for name, there in zip(names, known, strict=True)}
    decided = judge(np.nan_to_num(margins), thresholds=cuts)
    for metric in DECISION_METRICS:
        result[f"macro_{metric}"] = decided[f"macro_{metric}"]
        for name in names:
            result["per_finding"][name][metric] = decided["per_finding"][name][metric]


def _retrieval(
    benchmark: Benchmark,
    predictor: ColipriPredictor,
    encoded: EncodedSplit,
    options: BenchmarkOptions,
) -> dict[str, Any]:
    reports = [case.report() if case.has_report else None for case in encoded.cases]
    rows = [row for row, report in enumerate(reports) if report is not None]
    if len(rows) < 2:
        raise ColipriError(
            f"{benchmark.name} measures retrieval, but {len(rows)} of {len(reports)} cases have a "
            "report"
        )
    present = [report for report in reports if report is not None]
    images = encoded.embeddings[rows]
    texts = predictor.encode_texts([full_caption(report) for report in present])
    keys = [text_key(report) for report in present]
    patients = [encoded.subjects[row] for row in rows]
    numbers, seed = options.num_resamples, options.seed
    result: dict[str, Any] = {}
    if "retrieval" in benchmark.tasks:
        result["retrieval"] = retrieval_metrics(
            images, texts, keys, patients=patients, num_resamples=numbers, seed=seed
        )
        cases = [encoded.cases[row].identifier for row in rows]
        result["retrieval"]["case_ranks"] = case_ranks(images, texts, keys, cases, patients)
    if "pools" in benchmark.tasks:
        result["pools"] = pool_recall(
            images.double().numpy(),
            texts.double().numpy(),
            keys,
            patients,
            benchmark.raw["pools"],
            numbers,
            seed,
        )
    return result
