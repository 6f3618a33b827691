"""Confidence intervals by resampling patients, not scans.

Scans of one patient (reconstructions, follow-ups) are not independent; resampling scans would make
every interval too narrow. A resample draws as many patients as there are, with replacement, and
takes all scans of a patient as often as the patient was drawn. A resample is therefore a vector of
whole-numbered weights, one a scan, which lets all resamples be evaluated together.

Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 250  # resamples evaluated at once: keeps (chunk, scans) arrays in the processor's cache


def patient_weights(
    patients: Sequence[str], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """How often each scan is taken in each resample.

    Args:
        patients: The patient of every scan, n entries.
        num_resamples: R.
        seed: The same seed gives the same resamples, so that two models are compared on the same.

    Returns:
        (R, n) uint16; all scans of a patient have the same entry, and the entries of the distinct
        patients sum to the number of patients.
    """
    import numpy as np

    distinct, patient_of_scan = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = len(distinct)
    if count == 0:
        raise ColipriError("a bootstrap needs at least one patient")
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=num_resamples)
    return drawn.astype(np.uint16)[:, patient_of_scan]


def weight_chunks(weights: np.ndarray) -> list[np.ndarray]:
    """``weights`` (R, n) in float64 pieces of at most 250 resamples."""
    return [
        weights[start : start + _CHUNK].astype(float) for start in range(0, len(weights), _CHUNK)
    ]


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The central ``level`` of the resampled values.

    Args:
        values: (R,), NaN where the metric was undefined in a resample (one class only).

    Returns:
        (low, high), or None where the metric was undefined in half of the resamples or more: an
        interval from the rest would be a statement about lucky draws.
    """
    import numpy as np

    defined = values[np.isfinite(values)]
    if len(defined) == 0 or 2 * len(defined) <= len(values):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def estimate(value: float | None, resampled: np.ndarray | None) -> dict[str, Any]:
    """``{"value", "low", "high"}`` with null for what is undefined or was not resampled."""
    interval = None if value is None or resampled is None else percentile_interval(resampled)
    low, high = interval if interval is not None else (None, None)
    return {"value": value, "low": low, "high": high}


def paired_difference(
    first: float | None,
    second: float | None,
    resampled_first: np.ndarray,
    resampled_second: np.ndarray,
) -> dict[str, Any]:
    """Second minus first, both evaluated on the same resamples.

    Returns:
        ``{"value", "low", "high", "p_value"}``. The p-value is two-sided: twice the smaller share
        of resamples on either side of no difference (ties count on both sides), never below 1/R.
    """
    import numpy as np

    if first is None or second is None:
        return {"value": None, "low": None, "high": None, "p_value": None}
    differences = resampled_second - resampled_first
    defined = differences[np.isfinite(differences)]
    result = estimate(second - first, differences)
    if len(defined) == 0:
        return {**result, "p_value": None}
    smaller_side = min(float(np.mean(defined <= 0)), float(np.mean(defined >= 0)))
    result["p_value"] = min(1.0, max(2 * smaller_side, 1 / len(defined)))
    return result
