"""How few labels are enough: the logistic head on 1, 5, 10, 25 and 100 % of the patients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.display import progress
from colipri.common.hashing import derive_seed
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.skill import skill_metrics
from colipri.probing.logistic import fit_logistic
from colipri.probing.selection import Labelled
from colipri.probing.sides import FEWEST_PATIENTS, Side, Sides

logger = logging.getLogger(__name__)

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 1.0)
SEEDS = 3
_METRICS = ("macro_auroc", "macro_auprc", "macro_skill")


@dataclass(frozen=True)
class CurveOptions:
    """Of the curve.

    Attributes:
        fractions: Of the training patients, each above 0 and at most 1.
        seeds: Random subsets per fraction; subsets of one seed contain each other.
    """

    fractions: Sequence[float] = FRACTIONS
    seeds: int = SEEDS


def label_efficiency(
    sides: Sides, labelled: Callable[[Side], Labelled], options: CurveOptions
) -> dict[str, Any]:
    """Train on subsets of the training patients and judge each on the same evaluated split.

    A finding that a subset cannot teach (fewer than two patients with it or without) counts with
    chance, 0.5 in AUROC, its prevalence in AUPRC and 0 in skill, so that small subsets are not
    judged on their easy findings alone.

    Args:
        sides: Training, validation and evaluated cases.
        labelled: Gives the features of a side.
        options: Fractions and seeds.

    Returns:
        ``points``: per fraction the patients, scans and, per seed, macro AUROC, AUPRC, skill and
        how many findings were learned; ``method``.
    """
    val, test = labelled(sides.val), labelled(sides.test)
    patients = sorted(set(sides.train.patients))
    points: list[dict[str, Any]] = []
    runs = [(fraction, seed) for fraction in options.fractions for seed in range(options.seeds)]
    results: dict[float, list[dict[str, Any]]] = {fraction: [] for fraction in options.fractions}
    for fraction, seed in progress(runs, "Label efficiency", unit="run"):
        if fraction == 1.0 and seed:  # there is one way to take everybody
            continue
        chosen = set(_subset(patients, fraction, seed))
        rows = [i for i, patient in enumerate(sides.train.patients) if patient in chosen]
        part = sides.train.take(rows)
        results[fraction].append(
            {"scans": len(rows), **_judge(part, labelled(part), val, test, sides)}
        )
    for fraction, found in results.items():
        count = len(_subset(patients, fraction, 0))
        points.append({"fraction": fraction, "patients": count, "seeds": found})
    return {"method": "logistic", "points": points}


def _subset(patients: Sequence[str], fraction: float, seed: int) -> list[str]:
    order = np.random.default_rng(derive_seed(seed, "label efficiency")).permutation(len(patients))
    count = max(1, round(fraction * len(patients)))
    return [patients[i] for i in order[:count]]


def _judge(
    part: Side, train: Labelled, val: Labelled, test: Labelled, sides: Sides
) -> dict[str, Any]:
    patients = np.array(part.patients)
    learned = [
        index
        for index, column in enumerate(part.labels.T)
        if all(len(set(patients[column == value])) >= FEWEST_PATIENTS for value in (0, 1))
    ]
    logits = np.zeros(test.labels.shape)  # chance for what cannot be learned
    if learned:
        fitted = fit_logistic(
            Labelled(train.inputs, train.labels[:, learned]),
            Labelled(val.inputs, val.labels[:, learned]),
            vectors=("mean",),
        )
        logits[:, learned] = fitted.head.logits(test.inputs)
    names = list(sides.findings)
    metrics = classification_metrics(logits, test.labels, names, num_resamples=0)
    macro, _ = skill_metrics(
        logits, test.labels, names, patients=sides.test.patients, num_resamples=0
    )
    metrics["macro_skill"] = macro
    return {
        "learned_findings": len(learned),
        **{metric: metrics[metric]["value"] for metric in _METRICS},
    }
