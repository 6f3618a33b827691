"""Logistic regression on a pooled vector (scikit-learn), its C and vector chosen on validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from colipri.probing.heads import LinearHead
from colipri.probing.selection import Fitted, Labelled, selected_by, validation_score

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn, from strong to weak
VECTORS_TRIED = ("mean", "embedding", "mean and max")
_ITERATIONS = 300


def fit_logistic(
    train: Labelled,
    val: Labelled,
    *,
    vectors: Sequence[str] = VECTORS_TRIED,
    strengths: Sequence[float] = STRENGTHS,
) -> Fitted:
    """Fit one classifier per finding on standardized vectors; unknown labels are left out.

    Args:
        train: Learned from.
        val: Chooses C and the vector, for all findings together.
        vectors: Tried ones, see ``colipri.probing.inputs.VECTORS``.
        strengths: C, tried from strong to weak regularization.
    """
    best: Fitted | None = None
    for vector in vectors:
        inputs = train.inputs.vectors(vector).astype(np.float64)
        centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
        scale = np.where(scale > 1e-8, scale, 1.0)
        standardized = (inputs - centre) / scale
        for strength, (weights, biases) in zip(
            strengths, _path(standardized, train.labels, strengths), strict=True
        ):
            head = _head(vector, centre, scale, weights, biases)
            score = validation_score(head.logits(val.inputs), val.labels)
            if best is None or score > best.score:
                best = Fitted(head, score, {"C": strength, "vector": vector})
    assert best is not None
    tried = {"C": list(strengths), "vector": list(vectors)}
    choice = {**best.choice, "among": tried, "by": selected_by(val.labels), "value": best.score}
    return Fitted(best.head, best.score, choice)


def _path(
    inputs: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (F, width) and biases (F,) for every C; each fit starts from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    count = labels.shape[1]
    weights = np.zeros((len(strengths), count, inputs.shape[1]))
    biases = np.zeros((len(strengths), count))
    for index, column in enumerate(labels.T):
        known = np.isfinite(column)
        model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
        for place, strength in enumerate(strengths):
            with warnings.catch_warnings():  # a fit that is stopped early is a candidate as well
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=strength).fit(inputs[known], column[known].astype(int))
            weights[place, index], biases[place, index] = model.coef_[0], model.intercept_[0]
    return list(zip(weights, biases, strict=True))


def _head(
    vector: str, centre: np.ndarray, scale: np.ndarray, weights: np.ndarray, biases: np.ndarray
) -> LinearHead:
    head = LinearHead(vector, len(centre), len(biases))
    state = {"centre": centre, "scale": scale, "linear.weight": weights, "linear.bias": biases}
    head.load_state_dict({name: torch.from_numpy(a).float() for name, a in state.items()})
    return head
