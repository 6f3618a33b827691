"""Choosing among heads on the validation split, by the paper's measure: macro AUPRC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from colipri.probing.heads import Inputs

BY_AUPRC = "validation macro AUPRC"
BY_LOSS = "validation cross entropy (no finding has both classes there)"


@dataclass(frozen=True)
class Labelled:
    """Scans and their labels.

    Attributes:
        inputs: Features of n scans.
        labels: (n, F) of 0, 1 and NaN (unknown).
    """

    inputs: Inputs
    labels: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A trained head and how it was chosen.

    Attributes:
        head: Ready to score.
        score: On the validation split, higher is better.
        choice: What was chosen among what, as plain data.
    """

    head: Any
    score: float
    choice: dict[str, Any] = field(default_factory=dict)


def validation_score(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the macro AUPRC over the findings with both classes.

    Where there is none: minus the mean cross entropy. For logits that are not finite: -infinity.

    Args:
        logits: (n, F).
        labels: (n, F) of 0, 1 and NaN.
    """
    from sklearn.metrics import average_precision_score

    if not np.isfinite(logits).all():
        return -np.inf
    values = []
    for truth, score in zip(labels.T, logits.T, strict=True):
        known = np.isfinite(truth)
        if len(set(truth[known].tolist())) == 2:
            values.append(average_precision_score(truth[known].astype(int), score[known]))
    return float(np.mean(values)) if values else -masked_cross_entropy(logits, labels)


def selected_by(labels: np.ndarray) -> str:
    """Say which measure :func:`validation_score` is on these labels."""
    both = [len(set(column[np.isfinite(column)].tolist())) == 2 for column in labels.T]
    return BY_AUPRC if any(both) else BY_LOSS


def masked_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean binary cross entropy over known labels; 0 where none is known."""
    known = np.isfinite(labels)
    if not known.any():
        return 0.0
    score, truth = logits[known], labels[known]
    return float(np.mean(np.logaddexp(0, score) - truth * score))
