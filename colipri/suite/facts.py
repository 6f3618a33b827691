"""Finding out what a model and a data set allow, without encoding anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from colipri.checkpoints.weights_location import results_folder
from colipri.frozen_benchmarks.population import fitting_benchmarks
from colipri.inference.label_maps import LabelMaps
from colipri.inference.labelled_cases import (
    CaseCollection,
    LabelledCase,
    cases_of_split,
    collect_cases,
    label_matrix,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.report_writer import writes_reports
from colipri.inference.trained_objectives import trained_objectives
from colipri.suite.base import Facts


def gather_facts(
    predictor: ColipriPredictor, dataset: int | str, split: str, source: str, device: str
) -> Facts:
    """Look at labels, reports and label maps of the evaluated split.

    Args:
        predictor: The model, read from its checkpoint.
        dataset: Number or name.
        split: That is evaluated.
        source: See ``collect_cases``.
        device: That commands will compute on.

    Raises:
        ColipriError: there is no such data set or split.
    """
    collection = collect_cases(predictor, dataset, source)
    cases = cases_of_split(collection, split, predictor)
    objectives = trained_objectives(predictor.checkpoint)
    checkpoint = Path(predictor.source)
    maps = LabelMaps.of_dataset(collection.dataset, predictor.plans.orientation)
    names = collection.finding_names
    return Facts(
        checkpoint,
        collection.dataset,
        split,
        results_folder(checkpoint),
        device,
        collection.source,
        _labelled(cases, names, classes=1),
        _labelled(_others(collection, cases), names, classes=2),
        sum(case.has_report for case in cases),
        sum(any(maps.knows(case.identifier, name) for name in names) for case in cases),
        not objectives or any(one.compares for one in objectives.values()),
        any(map(writes_reports, objectives.values())),
        fitting_benchmarks(collection, predictor),
    )


def _others(collection: CaseCollection, judged: Sequence[LabelledCase]) -> list[LabelledCase]:
    """Cases that may be learned from: neither judged nor test."""
    taken = {case.identifier for case in judged}
    return [c for c in collection.cases.values() if c.identifier not in taken and c.split != "test"]


def _labelled(cases: Sequence[LabelledCase], names: Sequence[str], classes: int) -> tuple[str, ...]:
    """Findings of which so many classes are known."""
    labels = label_matrix(cases, names)
    known = [len(set(column[np.isfinite(column)].tolist())) for column in labels.T]
    return tuple(name for name, count in zip(names, known, strict=True) if count >= classes)
