"""Metrics of reports as sums over cases, so that all resamples of patients are one product.

A metric is given as a function of weighted sums: (R, k) sums of k numbers per case -> (R,) values.
The value on all cases is the same function with weights of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.evaluation.bootstrap import estimate, paired_difference, patient_weights

OfSums = Callable[[np.ndarray], np.ndarray]
_CHUNK = 250


@dataclass(frozen=True)
class Resamples:
    """Which cases each resample of patients takes, and how often.

    Attributes:
        weights: (R, n); R is 0 where there is one patient only.
        patients: Number of patients.
        seed: Of the resamples.
    """

    weights: np.ndarray
    patients: int
    seed: int

    @classmethod
    def of(cls, patients: Sequence[str], num_resamples: int, seed: int = 0) -> Resamples:
        """Draw them.

        Args:
            patients: Of every case.
            num_resamples: R.
            seed: The same seed gives the same resamples, so that two systems are compared on the
                same.
        """
        count = len(set(patients))
        resamples = num_resamples if count > 1 else 0
        if resamples == 0:
            return cls(np.zeros((0, len(patients)), dtype=np.uint16), count, seed)
        return cls(patient_weights(patients, resamples, seed), count, seed)

    def describe(self) -> dict[str, Any]:
        """Return what a result file records."""
        return {
            "resamples": len(self.weights),
            "unit": "patient",
            "level": 0.95,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Measured:
    """A metric: its value on all cases (NaN: undefined) and on every resample (R,)."""

    value: float
    draws: np.ndarray

    def to_dict(self, trials: int = 0) -> dict[str, Any]:
        """Return ``{"value", "low", "high"}``; null for what is undefined.

        Args:
            trials: Of a rate: the patients that it is a rate of.
        """
        value = None if self.value != self.value else float(self.value)
        return estimate(value, self.draws if len(self.draws) else None, trials)


def measure(per_case: np.ndarray, of_sums: OfSums, resamples: Resamples) -> Measured:
    """Compute a metric on all cases and on every resample.

    Args:
        per_case: (n, k) numbers of every case.
        of_sums: The metric of their sums.
        resamples: Of the patients.
    """
    per_case = np.asarray(per_case, dtype=float)
    value = float(of_sums(per_case.sum(axis=0, keepdims=True))[0])
    draws = [
        of_sums(resamples.weights[first : first + _CHUNK].astype(float) @ per_case)
        for first in range(0, len(resamples.weights), _CHUNK)
    ]
    return Measured(value, np.concatenate(draws) if draws else np.empty(0))


def mean(values: np.ndarray, resamples: Resamples) -> Measured:
    """Return the mean over cases (n,); cases that are NaN are left out."""
    known = np.isfinite(values)
    columns = np.stack([np.where(known, values, 0.0), known.astype(float)], axis=1)
    return measure(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]), resamples)


def difference(system: Measured, control: Measured) -> dict[str, Any]:
    """Return system minus control, paired: {value, low, high, p_value}."""
    first, second = (None if m.value != m.value else m.value for m in (control, system))
    if not len(system.draws) or not len(control.draws):
        value = None if first is None or second is None else second - first
        return {"value": value, "low": None, "high": None, "p_value": None}
    return paired_difference(first, second, control.draws, system.draws)


def ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Divide; ``otherwise`` where the denominator is 0.

    Args:
        numerator: Of any shape.
        denominator: Of the same shape.
        otherwise: The value of nothing by nothing.
    """
    result = np.full(np.broadcast(numerator, denominator).shape, otherwise, dtype=float)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) != 0)
    return result
