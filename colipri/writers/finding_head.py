"""A logistic head on frozen embeddings: which findings does the image show?

One classifier per finding, its strength of regularisation chosen by average precision on the
validation split, its threshold by F1 there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from colipri.common.errors import ColipriError
from colipri.evaluation.thresholds import choose_thresholds

logger = logging.getLogger(__name__)

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of scikit-learn
FEWEST = 3  # positives and negatives that a classifier needs


@dataclass(frozen=True)
class FindingHead:
    """A linear classifier per finding: logit = (x - mean) / scale . weights + bias.

    Attributes:
        finding_names: F.
        mean, scale: (E,) of the training embeddings.
        weights: (E, F).
        biases: (F,).
        thresholds: (F,) of the logit.
        untrained: Findings without enough training labels: never predicted.
    """

    finding_names: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    thresholds: np.ndarray
    untrained: tuple[str, ...]

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (n, F)."""
        result: np.ndarray = (embeddings - self.mean) / self.scale @ self.weights + self.biases
        return result

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (n, F)."""
        result: np.ndarray = expit(self.logits(embeddings))
        return result

    def decide(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (n, F) bool: at or above the threshold."""
        result: np.ndarray = self.logits(embeddings) >= self.thresholds
        return result


def fit_finding_head(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None,
    finding_names: Sequence[str],
) -> FindingHead:
    """Fit a head.

    Args:
        train: Embeddings (n, E) and labels (n, F) of 0, 1 and NaN (left out).
        validation: The same of other patients; None: strength 1 and threshold one half.
        finding_names: F.

    Raises:
        ColipriError: no finding has three positives and three negatives to learn from.
    """
    embeddings, labels = np.asarray(train[0], dtype=float), np.asarray(train[1], dtype=float)
    mean, scale = embeddings.mean(axis=0), embeddings.std(axis=0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    size = len(finding_names)
    weights, biases = np.zeros((embeddings.shape[1], size)), np.full(size, -np.inf)
    untrained = []
    for index, name in enumerate(finding_names):
        known = np.isfinite(labels[:, index])
        truth = labels[known, index].astype(int)
        if min(truth.sum(), (1 - truth).sum()) < FEWEST:
            untrained.append(name)
            continue
        inputs = (embeddings[known] - mean) / scale
        chosen = _best(inputs, truth, _of_finding(validation, index, mean, scale))
        weights[:, index], biases[index] = chosen
    if len(untrained) == size:
        raise ColipriError(
            f"no finding has {FEWEST} positive and {FEWEST} negative training cases to learn from"
        )
    if untrained:
        logger.warning(
            "Never predicted, fewer than %d positive or negative training cases: %s",
            FEWEST,
            ", ".join(untrained),
        )
    head = FindingHead(
        tuple(finding_names), mean, scale, weights, biases, np.zeros(size), tuple(untrained)
    )
    return _with_thresholds(head, validation)


def _with_thresholds(
    head: FindingHead, validation: tuple[np.ndarray, np.ndarray] | None
) -> FindingHead:
    if validation is None:
        return head
    logits = head.logits(np.asarray(validation[0], dtype=float))
    finite = np.where(np.isfinite(logits), logits, -1e9)
    cuts = choose_thresholds(finite, np.asarray(validation[1], dtype=float), head.finding_names)
    chosen = [cuts[name] for name in head.finding_names]
    thresholds = np.array([0.0 if cut is None else cut for cut in chosen])
    return FindingHead(
        head.finding_names,
        head.mean,
        head.scale,
        head.weights,
        head.biases,
        thresholds,
        head.untrained,
    )


def _of_finding(
    validation: tuple[np.ndarray, np.ndarray] | None,
    index: int,
    mean: np.ndarray,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    if validation is None:
        return None
    known = np.isfinite(validation[1][:, index])
    truth = validation[1][known, index].astype(int)
    if len(set(truth.tolist())) < 2:
        return None
    return (np.asarray(validation[0], dtype=float)[known] - mean) / scale, truth


def _best(
    inputs: np.ndarray, truth: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS if validation is not None else (1.0,):
        model = LogisticRegression(C=strength, max_iter=2000).fit(inputs, truth)
        score = 0.0
        if validation is not None:
            score = average_precision_score(validation[1], model.decision_function(validation[0]))
        if best is None or score > best[0]:
            best = (score, model.coef_[0], float(model.intercept_[0]))
    assert best is not None
    return best[1], best[2]
