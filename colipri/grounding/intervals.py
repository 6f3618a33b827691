"""Means with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from colipri.evaluation.bootstrap import estimate, patient_weights


@dataclass
class Answers:
    """Values of one test with the patient of each."""

    values: list[float] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)

    def add(self, value: float, patient: str) -> None:
        """Add a scan's value."""
        self.values.append(value)
        self.patients.append(patient)

    def mean(self, num_resamples: int, rate: bool = False) -> dict[str, Any]:
        """Return their mean with its interval, see :func:`mean_estimate`."""
        return mean_estimate(self.values, self.patients, num_resamples, rate=rate)


def mean_estimate(
    values: Sequence[float], patients: Sequence[str], num_resamples: int, *, rate: bool = False
) -> dict[str, Any]:
    """Return {"value", "low", "high", "number"} of a mean.

    Args:
        values: One per scan and finding.
        patients: Of each.
        num_resamples: Of the bootstrap over patients; 0 for no interval.
        rate: True for shares of right answers, which have an exact interval at 0 and 1.
    """
    if not len(values):
        return {"value": None, "low": None, "high": None, "number": 0}
    array = np.asarray(values, dtype=float)
    draws = None
    if num_resamples and len(set(patients)) > 1:
        weights = patient_weights(patients, num_resamples).astype(float)
        totals = weights.sum(axis=1)
        draws = np.divide(
            weights @ array, totals, out=np.full(len(weights), np.nan), where=totals > 0
        )
    trials = len(set(patients)) if rate else 0
    return {**estimate(float(array.mean()), draws, trials), "number": len(array)}


def macro_estimate(
    per_finding: Mapping[str, Sequence[float]],
    patients: Mapping[str, Sequence[str]],
    num_resamples: int,
) -> dict[str, Any]:
    """Return {"value", "low", "high", "findings"} of the mean over findings of their means.

    Args:
        per_finding: Finding -> values.
        patients: Finding -> patient of each value.
        num_resamples: Of the bootstrap; a resample draws patients of all findings together.
    """
    names = [name for name, values in per_finding.items() if len(values)]
    if not names:
        return {"value": None, "low": None, "high": None, "findings": 0}
    value = float(np.mean([np.mean(per_finding[name]) for name in names]))
    everyone = sorted({one for name in names for one in patients[name]})
    draws = None
    if num_resamples and len(everyone) > 1:
        place = {one: column for column, one in enumerate(everyone)}
        weights = patient_weights(everyone, num_resamples).astype(float)
        means = []
        for name in names:
            chosen = weights[:, [place[one] for one in patients[name]]]
            totals = chosen.sum(axis=1)
            sums = chosen @ np.asarray(per_finding[name], dtype=float)
            means.append(np.divide(sums, totals, out=np.full(len(sums), np.nan), where=totals > 0))
        stacked = np.stack(means)
        counts = np.isfinite(stacked).sum(axis=0)
        draws = np.divide(
            np.nansum(stacked, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0
        )
    return {**estimate(value, draws), "findings": len(names)}
