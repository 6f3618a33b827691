"""Judge generated reports beside controls, on the same cases and the same resamples.

A control is a set of reports that a simple method writes. The hardest one is the report of the
predicted combination of findings: whoever does not beat it has learned to classify, not to write.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colipri.common.errors import ColipriError
from colipri.evaluation.bootstrap import NUM_RESAMPLES
from colipri.report_metrics.collapse import collapse_measures
from colipri.report_metrics.details import detail_metrics
from colipri.report_metrics.extras import ExtraMetric
from colipri.report_metrics.findings import (
    FindingLabels,
    finding_metrics,
    findings_without_positives,
    per_finding,
)
from colipri.report_metrics.labellers import LabellerPair
from colipri.report_metrics.report_pairs import JudgedText, ReportPairs, match_reports
from colipri.report_metrics.resampling import Measured, Resamples, difference, mean
from colipri.report_metrics.text_metrics import text_metrics

logger = logging.getLogger(__name__)

GENERATED = "generated"
CONTROLS = {
    "random": "a random training report",
    "nearest": "the report of the training image that is nearest",
    "labels": "the report of the predicted combination of findings",
}
DECIDES = "macro_f1"  # what "beats" refers to


@dataclass(frozen=True)
class JudgeSettings:
    """How reports are judged.

    Attributes:
        finding_names: For sides, sizes and negations.
        labellers: At least one; the first decides what "beats" means.
        extras: Further metrics, where installed.
        with_text_metrics: BLEU, ROUGE-L, CIDEr and METEOR.
        num_resamples: 0 for no intervals.
        seed: Of the resamples.
        missing: See :func:`colipri.report_metrics.report_pairs.match_reports`.
    """

    finding_names: Sequence[str]
    labellers: Sequence[LabellerPair]
    extras: Sequence[ExtraMetric] = ()
    with_text_metrics: bool = True
    num_resamples: int = NUM_RESAMPLES
    seed: int = 0
    missing: str = "error"


@dataclass
class _System:
    """One set of reports and what was measured of it."""

    pairs: ReportPairs
    measured: dict[str, Measured] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


def judge_reports(
    references: Mapping[str, JudgedText],
    generated: Mapping[str, JudgedText],
    controls: Mapping[str, Mapping[str, JudgedText] | str],
    settings: JudgeSettings,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Judge generated reports and controls.

    Args:
        references: Case -> report.
        generated: Case -> report to be judged.
        controls: Name -> reports of the same cases, or the reason why there are none. The three of
            :data:`CONTROLS` are always named in the result.
        settings: How.
        patients: Case -> patient.

    Returns:
        Plain data: ``cases``, ``patients``, ``notes``, ``systems`` (name -> figures),
        ``comparisons`` (control -> metric -> generated minus control), ``controls_missing``.

    Raises:
        ColipriError: reports are missing, labels do not fit, a package is missing.
    """
    pairs = match_reports(references, generated, patients, settings.missing)
    resamples = Resamples.of(pairs.patients, settings.num_resamples, settings.seed)
    judged = {GENERATED: _judge(pairs, settings, resamples, judged_reports=True)}
    reasons = {name: "not given" for name in CONTROLS if name not in controls}
    chosen = {case: references[case] for case in pairs.cases}
    for name, texts in controls.items():
        if isinstance(texts, str):
            reasons[name] = texts
            continue
        logger.info("Judging the control '%s'", name)
        other = match_reports(chosen, texts, patients, "error")
        judged[name] = _judge(other, settings, resamples, judged_reports=False)
    return {
        "cases": len(pairs.cases),
        "patients": resamples.patients,
        "notes": list(pairs.notes),
        "bootstrap": resamples.describe(),
        "decides": DECIDES,
        "systems": {name: system.result for name, system in judged.items()},
        "comparisons": {
            name: _compare(judged[GENERATED], system)
            for name, system in judged.items()
            if name != GENERATED
        },
        "controls_missing": reasons,
    }


def verdict(comparison: Mapping[str, Any]) -> str:
    """Say in one word how the generated reports stand against a control: "beats", "loses to",
    "equals" (the interval of the difference holds 0) or "unclear" (no interval).
    """
    entry = comparison.get(DECIDES) or {}
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None:
        return "equals" if entry.get("value") == 0 else "unclear"
    if low > 0:
        return "beats"
    return "loses to" if high < 0 else "equals"


def _judge(
    pairs: ReportPairs, settings: JudgeSettings, resamples: Resamples, judged_reports: bool
) -> _System:
    system = _System(pairs)
    result = system.result
    if settings.with_text_metrics:
        found, missing = text_metrics(
            [text.text for text in pairs.references],
            [text.text for text in pairs.generated],
            resamples,
        )
        system.measured |= found
        result["text"] = {name: measured.to_dict() for name, measured in found.items()}
        result["text_missing"] = missing
    result["findings"] = _findings(system, settings, resamples, judged_reports)
    result["details"] = detail_metrics(pairs, settings.finding_names, resamples)
    result["extras"] = {extra.name: _extra(extra, system, resamples) for extra in settings.extras}
    return system


def _findings(
    system: _System, settings: JudgeSettings, resamples: Resamples, judged_reports: bool
) -> list[dict[str, Any]]:
    """One entry per labeller; the first one's figures decide, and give the collapse measures."""
    pairs, entries = system.pairs, []
    for position, labeller in enumerate(settings.labellers):
        if not labeller.of_any_text and not judged_reports:
            continue
        labels = FindingLabels(
            labeller.finding_names,
            labeller.label_references(pairs),
            labeller.label_generated(pairs),
            labeller.source,
        )
        if not (labels.reference == 1).any():
            raise ColipriError(
                f"{labeller.source}: no reference report affirms any of the findings "
                f"({', '.join(labels.names)}); are they in another language, or about other "
                "findings (-f)?"
            )
        summary = finding_metrics(labels, resamples)
        if position == 0:
            system.measured |= summary
            system.result["collapse"] = collapse_measures(pairs, labels)
            system.result["case_labels"] = _case_labels(pairs, labels)
        entries.append(
            {
                "labeller": labeller.source,
                **{name: measured.to_dict() for name, measured in summary.items()},
                "per_finding": per_finding(labels, resamples),
                "undefined_findings": findings_without_positives(labels),
            }
        )
    return entries


def _case_labels(pairs: ReportPairs, labels: FindingLabels) -> list[dict[str, Any]]:
    """What was read in both reports of every case, for colipri_compare."""
    return [
        {
            "case": case,
            "subject": patient,
            "reference": {
                name: None if value != value else int(value)
                for name, value in zip(labels.names, truth, strict=True)
            },
            "generated": dict(zip(labels.names, map(int, written), strict=True)),
        }
        for case, patient, truth, written in zip(
            pairs.cases, pairs.patients, labels.reference, labels.generated, strict=True
        )
    ]


def _extra(extra: ExtraMetric, system: _System, resamples: Resamples) -> dict[str, Any]:
    pairs = system.pairs
    scores = extra.scores(
        [text.text for text in pairs.references], [text.text for text in pairs.generated]
    )
    measured = mean(scores, resamples)
    system.measured[extra.name] = measured
    return {**measured.to_dict(), "valid_for": extra.valid_for}


def _compare(system: _System, control: _System) -> dict[str, Any]:
    """Generated minus control for every metric that both have."""
    return {
        name: difference(measured, control.measured[name])
        for name, measured in system.measured.items()
        if name in control.measured
    }
