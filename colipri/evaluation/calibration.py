"""Probabilities that mean what they say: fitted on one split, measured on another.

Expected calibration error: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Their
temperature alone pulls every probability of a doubtful head to 0.5, also of a rare finding; with
Platt's offset (Advances in Large Margin Classifiers, 1999) it pulls to the finding's frequency.
Isotonic regression: Zadrozny and Elkan, KDD 2002 (scikit-learn's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from colipri.common.errors import ColipriError

METHODS = ("temperature", "isotonic", "none")
NUM_BINS = 15  # Guo et al.
_LOG_TEMPERATURES = (-4.0, 6.0)
_OFFSETS = (-20.0, 20.0)
_INNER = 1e-6  # isotonic probabilities stay off 0 and 1: no scan is certain


@dataclass(frozen=True)
class Calibration:
    """How the logits of one finding become probabilities.

    Attributes:
        temperature: Logits are divided by it.
        offset: Added then.
        knots: Pairs (logit, probability), ascending and interpolated between; empty for none.
        reason: Why the finding has none, if it has none.
    """

    temperature: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    reason: str = ""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities of any shape, float64."""
        if self.knots:
            places, values = np.array(self.knots).T
            result: np.ndarray = np.interp(logits, places, values)
            return result
        scaled: np.ndarray = expit(np.asarray(logits, dtype=float) / self.temperature + self.offset)
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "temperature": self.temperature,
            "offset": self.offset,
            "knots": [list(knot) for knot in self.knots],
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`to_dict` returns."""
        knots = tuple((float(x), float(y)) for x, y in content.get("knots", ()))
        temperature, offset = float(content["temperature"]), float(content["offset"])
        return cls(temperature, offset, knots, str(content.get("reason", "")))


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, finding_names: Sequence[str], method: str
) -> dict[str, Calibration]:
    """Fit one calibration per finding on a split that is not evaluated.

    Args:
        logits: (n, F).
        labels: (n, F) of 0, 1 and NaN (unknown: left out for that finding).
        finding_names: F names.
        method: temperature, isotonic or none. A temperature keeps the order of all scans; isotonic
            regression may tie them, and needs many scans of either class.

    Returns:
        Finding -> calibration; the identity where only one class is known, with the reason.

    Raises:
        ColipriError: no such method.
    """
    if method not in METHODS:
        raise ColipriError(f"calibration must be {', '.join(METHODS)}, not {method}")
    found = {}
    for index, name in enumerate(finding_names):
        known = np.isfinite(labels[:, index])
        truth, score = labels[known, index], logits[known, index].astype(float)
        if method == "none":
            found[name] = Calibration(reason="not calibrated")
        elif len(set(truth.tolist())) < 2:
            found[name] = Calibration(reason="one class only on the split that calibrates")
        elif method == "temperature":
            found[name] = Calibration(*_temperature_and_offset(score, truth))
        else:
            found[name] = Calibration(knots=_isotonic(score, truth))
    return found


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> float | None:
    """Return the mean gap between probability and frequency over bins of equal width.

    Args:
        probabilities: (n,).
        labels: (n,) of 0, 1 and NaN (left out).
        num_bins: Between 0 and 1.

    Returns:
        The sum over bins of their share of the scans times |mean probability - frequency|; None
        without any label.
    """
    known = np.isfinite(labels)
    if not known.any():
        return None
    chance, truth = probabilities[known], labels[known]
    bins = np.minimum((chance * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=chance - truth, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(truth))


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return (mean probability, frequency, scans) of every bin that is not empty.

    Args:
        probabilities: Of any shape.
        labels: Of the same shape, of 0, 1 and NaN (left out).
        num_bins: Of equal width.
    """
    known = np.isfinite(labels)
    chance, truth = probabilities[known], labels[known]
    bins = np.minimum((chance * num_bins).astype(int), num_bins - 1)
    return [
        (float(chance[bins == b].mean()), float(truth[bins == b].mean()), int((bins == b).sum()))
        for b in range(num_bins)
        if (bins == b).any()
    ]


def _temperature_and_offset(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Those of the smallest negative log likelihood, with Platt's targets: a little off 0 and 1, so
    that few scans that happen to be separable do not give certainty."""
    positives = labels.sum()
    negatives = len(labels) - positives
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> float:
        scaled = logits * np.exp(-parameters[0]) + parameters[1]
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    start = [0.0, 0.0]
    found = minimize(loss, start, method="L-BFGS-B", bounds=[_LOG_TEMPERATURES, _OFFSETS])
    return float(np.exp(found.x[0])), float(found.x[1])


def _isotonic(logits: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, float], ...]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=_INNER, y_max=1 - _INNER, out_of_bounds="clip")
    model.fit(logits, labels)
    places, values = model.X_thresholds_, model.y_thresholds_
    return tuple((float(x), float(y)) for x, y in zip(places, values, strict=True))
