"""Thresholds and calibration of a head from validation, its metrics on the evaluated split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.evaluation.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from colipri.evaluation.classification import classification_metrics
from colipri.evaluation.skill import skill_metrics
from colipri.evaluation.thresholds import choose_thresholds
from colipri.probing.sides import Side


@dataclass(frozen=True)
class Decisions:
    """What turns logits into probabilities and decisions, chosen on validation.

    Attributes:
        thresholds: Finding -> logit, None where validation has one class only.
        calibration: Finding -> how its logits become probabilities.
        source: Where they come from, in words.
    """

    thresholds: Mapping[str, float | None]
    calibration: Mapping[str, Calibration]
    source: str

    def probabilities(self, logits: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(n, F) logits -> (n, F) calibrated probabilities."""
        columns = [
            self.calibration[name].probabilities(logits[:, i]) for i, name in enumerate(names)
        ]
        return np.stack(columns, axis=1)


def decide_on_validation(
    logits: np.ndarray, val: Side, findings: Sequence[str], method: str, validation_is: str
) -> Decisions:
    """Choose thresholds (maximum F1) and calibration.

    Args:
        logits: (n, F) of the validation cases.
        val: The validation side.
        findings: F names.
        method: Of calibration.
        validation_is: Where the validation cases come from, in words.
    """
    thresholds = choose_thresholds(logits, val.labels, findings)
    undefined = [name for name, value in thresholds.items() if value is None]
    source = f"maximum F1 on {validation_is} ({len(val.cases)} scans)"
    if undefined:
        source += f"; none for {', '.join(undefined)} (one class only there)"
    return Decisions(thresholds, fit_calibration(logits, val.labels, findings, method), source)


def judge(
    logits: np.ndarray,
    side: Side,
    findings: Sequence[str],
    decisions: Decisions,
    *,
    num_resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a head on the evaluated split.

    Args:
        logits: (n, F) of its cases.
        side: The evaluated side.
        findings: F names.
        decisions: From validation.
        num_resamples: Of the bootstrap over patients; 0 for no intervals.
        seed: Of the resamples.

    Returns:
        As ``classification_metrics``, with ``macro_skill``, ``skill`` and ``calibration_error`` per
        finding, ``calibration`` (expected calibration error before and after, macro) and
        ``thresholds``.
    """
    result = classification_metrics(
        logits,
        side.labels,
        findings,
        patients=side.patients,
        thresholds=decisions.thresholds,
        num_resamples=num_resamples,
        seed=seed,
    )
    macro, per_finding = skill_metrics(
        logits,
        side.labels,
        findings,
        patients=side.patients,
        num_resamples=num_resamples,
        seed=seed,
    )
    chances = decisions.probabilities(logits, findings)
    plain = Calibration()
    errors, before = [], []
    for index, name in enumerate(findings):
        entry, truth = result["per_finding"][name], side.labels[:, index]
        entry["skill"] = per_finding[name]
        entry["calibration_error"] = expected_calibration_error(chances[:, index], truth)
        errors.append(entry["calibration_error"])
        before.append(expected_calibration_error(plain.probabilities(logits[:, index]), truth))
        cut = decisions.thresholds.get(name)
        entry["threshold"] = _probability(decisions.calibration[name], cut)
    result["macro_skill"] = macro
    result["calibration"] = {
        "error": _mean(errors),
        "error_without": _mean(before),
        "reliability": [list(entry) for entry in reliability(chances, side.labels)],
    }
    result["thresholds"] = {
        "source": decisions.source,
        "logits": dict(decisions.thresholds),
        "values": {name: result["per_finding"][name]["threshold"] for name in findings},
    }
    return result


def case_scores(
    logits: np.ndarray, side: Side, findings: Sequence[str], decisions: Decisions
) -> list[dict[str, Any]]:
    """Return scores, logits and labels of every case, as ``colipri_zero_shot`` writes them.

    Args:
        logits: (n, F).
        side: Its cases.
        findings: F names.
        decisions: Give the calibrated probabilities.
    """
    chances = decisions.probabilities(logits, findings)
    return [
        {
            "case": case.identifier,
            "subject": case.subject,
            "study": case.study,
            "scores": dict(zip(findings, map(float, chances[row]), strict=True)),
            "logits": dict(zip(findings, map(float, logits[row]), strict=True)),
            "labels": {
                name: None if label != label else int(label)
                for name, label in zip(findings, side.labels[row], strict=True)
            },
        }
        for row, case in enumerate(side.cases)
    ]


def _probability(calibration: Calibration, logit: float | None) -> float | None:
    if logit is None:
        return None
    return float(calibration.probabilities(np.array([logit]))[0])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
