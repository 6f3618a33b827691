"""The findings that are inserted: what each is called, how often, and the functions that draw it.

A finding is three small functions: ``draw`` chooses its details (side, size, place), ``deform``
changes the shape of the chest where the finding does so, ``insert`` draws it and returns what the
report may say. The order here gives the label values of labelsTr (1, 2, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest import (
    lung_findings,
    mediastinal_findings,
    pleural_findings,
)
from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest, Details
from colipri.dataset_conversion.semi_synthetic_chest.deformation import Shape
from colipri.dataset_conversion.semi_synthetic_chest.variants import FIRST, VARIANTS


@dataclass(frozen=True)
class Finding:
    """One kind of finding.

    Attributes:
        name: column of cases.csv; CT-RATE's word where it has one.
        key: of the sentences in reports.json.
        prevalence: probability in an abnormal study.
        draw: random details, among them ``size`` (a word) where sizes exist.
        insert: draws into a chest with a label value; returns the details, completed by what
            drawing decided (lobe, side, count).
        deform: changes the shape before the chest is made.
    """

    name: str
    key: str
    prevalence: float
    draw: Callable[[np.random.Generator], Details]
    insert: Callable[[Chest, Details, int], Details]
    deform: Callable[[Shape, Details], Shape] | None = None


FINDINGS: tuple[Finding, ...] = (
    Finding(
        "Pleural effusion",
        "pleural_effusion",
        0.42,
        pleural_findings.draw_effusion,
        pleural_findings.insert_effusion,
    ),
    Finding(
        "Pneumothorax",
        "pneumothorax",
        0.33,
        pleural_findings.draw_pneumothorax,
        pleural_findings.insert_pneumothorax,
    ),
    Finding(
        "Consolidation",
        "consolidation",
        0.39,
        lung_findings.draw_consolidation,
        lung_findings.insert_consolidation,
    ),
    Finding(
        "Lung opacity",
        "lung_opacity",
        0.36,
        lung_findings.draw_opacity,
        lung_findings.insert_opacity,
    ),
    Finding(
        "Lung nodule",
        "lung_nodule",
        0.42,
        lung_findings.draw_nodules,
        lung_findings.insert_nodules,
    ),
    Finding(
        "Emphysema",
        "emphysema",
        0.34,
        lung_findings.draw_emphysema,
        lung_findings.insert_emphysema,
    ),
    Finding(
        "Atelectasis",
        "atelectasis",
        0.34,
        lung_findings.draw_atelectasis,
        lung_findings.insert_atelectasis,
        lung_findings.deform_atelectasis,
    ),
    Finding(
        "Cardiomegaly",
        "cardiomegaly",
        0.42,
        mediastinal_findings.draw_cardiomegaly,
        mediastinal_findings.insert_cardiomegaly,
        mediastinal_findings.deform_cardiomegaly,
    ),
    Finding(
        "Arterial wall calcification",
        "arterial_wall_calcification",
        0.39,
        mediastinal_findings.draw_calcification,
        mediastinal_findings.insert_calcification,
    ),
    Finding(
        "Hiatal hernia",
        "hiatal_hernia",
        0.31,
        mediastinal_findings.draw_hernia,
        mediastinal_findings.insert_hernia,
    ),
)
FINDING_NAMES = tuple(finding.name for finding in FINDINGS)


@cache
def findings_of(variant: str = FIRST) -> tuple[Finding, ...]:
    """The findings of a variant, under its names; their order gives its label values."""
    chosen = VARIANTS[variant].findings
    if chosen is None:
        return FINDINGS
    by_key = {finding.key: finding for finding in FINDINGS}
    return tuple(
        replace(by_key[key], name=name, prevalence=prevalence)
        for key, (name, prevalence) in chosen.items()
    )


def keys_of(names: Iterable[str]) -> frozenset[str]:
    """Keys of findings by their names in the first variant, which sources.json uses."""
    by_name = {finding.name: finding.key for finding in FINDINGS}
    return frozenset(by_name[name] for name in names)
