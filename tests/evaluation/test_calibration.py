"""Calibration against hand-worked bins, scikit-learn, and logits whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from colipri.common.errors import ColipriError
from colipri.evaluation.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability,
)


def test_error_by_hand() -> None:
    """Bins of a tenth: (0.15, 0.12; one of two is true) and (0.95; true): gaps 0.365 and 0.05."""
    chances = np.array([0.15, 0.12, 0.95, 0.5])
    labels = np.array([1.0, 0.0, 1.0, np.nan])
    expected = 2 / 3 * abs(0.135 - 0.5) + 1 / 3 * 0.05
    assert expected_calibration_error(chances, labels, 10) == pytest.approx(expected)
    assert expected_calibration_error(chances, np.full(4, np.nan)) is None
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
    assert reliability(chances, labels) == [(pytest.approx(0.135), 0.5, 2), (0.95, 1.0, 1)]


def test_a_known_distortion_is_undone() -> None:
    """Logits three times too large and shifted by 2: temperature 3, offset -2/3."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (20_000, 1))
    labels = (rng.random(true.shape) < expit(true)).astype(float)
    distorted = 3 * true + 2
    found = fit_calibration(distorted, labels, ["a"], "temperature")["a"]
    assert found.temperature == pytest.approx(3, abs=0.15)
    assert found.offset == pytest.approx(-2 / 3, abs=0.06)
    error = expected_calibration_error(found.probabilities(distorted)[:, 0], labels[:, 0])
    before = expected_calibration_error(expit(distorted)[:, 0], labels[:, 0])
    assert error is not None and before is not None and error < 0.02 < 0.15 < before


def test_the_order_of_scans_stays() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(50, 1)), rng.integers(0, 2, (50, 1)).astype(float)
    found = fit_calibration(logits, labels, ["a"], "temperature")["a"]
    order = np.argsort(logits[:, 0])
    assert (np.diff(found.probabilities(logits)[order, 0]) >= 0).all()


def test_a_useless_rare_finding_gets_its_frequency() -> None:
    """Not 0.5, to which a temperature alone would pull it."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 5, (2_000, 1))
    labels = (rng.random((2_000, 1)) < 0.05).astype(float)
    chances = fit_calibration(logits, labels, ["a"], "temperature")["a"].probabilities(logits)
    assert chances.max() < 0.2 and chances.mean() == pytest.approx(labels.mean(), abs=0.01)


def test_isotonic_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(200, 1))
    labels = (rng.random((200, 1)) < expit(logits)).astype(float)
    found = fit_calibration(logits, labels, ["a"], "isotonic")["a"]
    new = np.linspace(-4, 4, 101)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits[:, 0], labels[:, 0])
    assert found.probabilities(new) == pytest.approx(reference.predict(new), abs=1e-5)
    assert found.probabilities(new).min() > 0 and found.probabilities(new).max() < 1


def test_one_class_and_few_scans() -> None:
    logits = np.array([[0.0, 3.0], [1.0, -3.0]])
    labels = np.array([[1.0, 1.0], [1.0, 0.0]])
    found = fit_calibration(logits, labels, ["one", "both"], "temperature")
    assert found["one"] == Calibration(reason="one class only on the split that calibrates")
    chances = found["both"].probabilities(logits[:, 1])
    assert 0.5 < chances[0] < 0.9 and 0.1 < chances[1] < 0.5  # two scans prove little
    assert Calibration.from_dict(found["both"].to_dict()) == found["both"]
    with pytest.raises(ColipriError, match="calibration must be temperature, isotonic, none"):
        fit_calibration(logits, labels, ["one", "both"], "magic")
