"""One semi-synthetic study: a subject's chest with findings, its reconstructions and its report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.acquisition import acquire, draw_acquisition
from colipri.dataset_conversion.semi_synthetic_chest.chest import make_chest
from colipri.dataset_conversion.semi_synthetic_chest.deformation import draw_shape, draw_view
from colipri.dataset_conversion.semi_synthetic_chest.findings import Finding, findings_of, keys_of
from colipri.dataset_conversion.semi_synthetic_chest.people import draw_blend
from colipri.dataset_conversion.semi_synthetic_chest.reports import (
    Mention,
    read_words,
    report_as_text,
    write_report,
)
from colipri.dataset_conversion.semi_synthetic_chest.sources import load_source, source_names
from colipri.dataset_conversion.semi_synthetic_chest.variants import FIRST, VARIANTS

SPACING_MM = 5.0
NORMAL = 0.08  # share of studies without any finding
SECOND_RECONSTRUCTION = 0.15
JSON_REPORT = 0.1
_TWINS = 11  # separates the twins' random numbers from those of single studies


@dataclass(frozen=True)
class StudyPlan:
    """What identifies a study: everything about it follows from these.

    Attributes:
        identifier: case identifier without the reconstruction.
        source: name of the real scan.
        split: train, val or test.
        seed: of the whole data set.
        number: of the study.
        with_report: False for image-only studies.
        twins: number of the pair of studies that share a chest between two people; None: the chest
            of one person, for this study alone.
        variant: of the set, see variants.py.
    """

    identifier: str
    source: str
    split: str
    seed: int
    number: int
    with_report: bool
    twins: int | None = None
    variant: str = FIRST


@dataclass
class Study:
    """Volumes (Z, Y, X) in LPS with spacing (z, y, x) mm, label maps, report, labels."""

    plan: StudyPlan
    volumes: list[NDArray[np.int16]] = field(default_factory=list)
    label_maps: list[NDArray[np.uint8]] = field(default_factory=list)
    spacings: list[tuple[float, float, float]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    findings: dict[str, int | None] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)


def make_study(plan: StudyPlan) -> Study:
    """Make a study; equal plans give equal studies.

    Twins are one chest under the same scanner, with findings drawn for each of them: what differs
    between them are the findings alone, so nothing else of a chest can stand for one.
    """
    rng = np.random.default_rng([plan.seed, plan.number])
    source = load_source(plan.source)
    findings = findings_of(plan.variant)
    unknown = keys_of(source.unknown)
    drawn = _draw_findings(findings, rng, unknown)
    chest_rng = rng
    blend = None
    if plan.twins is not None:
        chest_rng = np.random.default_rng([plan.seed, plan.twins, _TWINS])
        names = (name for name in source_names(plan.split) if name != plan.source)
        blend = draw_blend(chest_rng, [load_source(name) for name in names])
    shape = draw_shape(chest_rng)
    for finding in findings:
        if finding.deform is not None and finding.name in drawn:
            shape = finding.deform(shape, drawn[finding.name])
    study = Study(plan)
    insertion_seed = int(rng.integers(2**31))
    reconstructions = 2 if rng.random() < SECOND_RECONSTRUCTION else 1
    for index in range(reconstructions):
        view = draw_view(chest_rng, SPACING_MM)
        if index:  # the same examination on another grid, with another kernel
            factor = float(rng.uniform(1.05, 1.3))
            view = replace(view, spacing=(view.spacing[0] * factor, *view.spacing[1:]))
        # Both get the same findings: drawing uses the same random numbers.
        chest = make_chest(source, shape, view, np.random.default_rng(insertion_seed), blend)
        for label, finding in enumerate(findings, start=1):
            if finding.name in drawn:
                chest.rng = np.random.default_rng([insertion_seed, label])
                details = finding.insert(chest, drawn[finding.name], label)
                if not index:
                    study.details[finding.name] = details
        acquisition = draw_acquisition(chest_rng, wide=plan.twins is not None)
        study.volumes.append(acquire(chest, acquisition, rng))
        study.label_maps.append(chest.labels)
        study.spacings.append(view.spacing)
    _describe(study, unknown, rng)
    return study


def _draw_findings(
    findings: tuple[Finding, ...], rng: np.random.Generator, unknown: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """Findings and details; what the real patient may have is not inserted either.

    If it were, it would be asserted of this anatomy and never denied: a model would learn whose
    scan it is and answer from that.
    """
    normal = rng.random() < NORMAL
    drawn = {}
    for finding in findings:
        there = rng.random() < finding.prevalence
        details = finding.draw(rng)
        if there and not normal and finding.key not in unknown:
            drawn[finding.name] = details
    return drawn


def _describe(study: Study, unknown: frozenset[str], rng: np.random.Generator) -> None:
    """Labels and report; neither mentions what the real patient may have."""
    findings = findings_of(study.plan.variant)
    for finding in findings:
        there = finding.name in study.details
        study.findings[finding.name] = 1 if there else None if finding.key in unknown else 0
    mentions = [Mention(f.key, study.details.get(f.name)) for f in findings]
    words = read_words(VARIANTS[study.plan.variant].reports)
    study.sections = write_report(words, mentions, unknown, rng)
    if study.plan.with_report and rng.random() >= JSON_REPORT:
        study.text = report_as_text(words, study.sections, rng)
