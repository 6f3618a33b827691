"""Decision thresholds: chosen on the validation split, applied elsewhere, never chosen on the test.

This module sees one set of scores and labels: that of the split it is given. Evaluation takes the
result as plain numbers and cannot reach back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def choose_thresholds(
    scores: np.ndarray, labels: np.ndarray, finding_names: Sequence[str]
) -> dict[str, float | None]:
    """The threshold of maximum F1 for every finding.

    Args:
        scores: (n, F).
        labels: (n, F) of 0, 1 and NaN (unknown: left out for that finding).
        finding_names: F names.

    Returns:
        Threshold per finding (positive means score >= threshold), None where only one class is
        known, because no threshold can be judged there.
    """
    import numpy as np

    chosen: dict[str, float | None] = {}
    for index, name in enumerate(finding_names):
        known = np.isfinite(labels[:, index])
        chosen[name] = _maximum_f1(scores[known, index], labels[known, index].astype(int))
    return chosen


def _maximum_f1(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Middle of the gap below the best score; of several equal optima the highest.

    The middle of the gap gives the same decisions here and is the less arbitrary cut for new
    cases; the highest optimum raises the fewest alarms.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    if len(set(labels.tolist())) < 2:
        return None
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last pair belongs to no threshold
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = float(thresholds[np.flatnonzero(f1 >= f1.max() - 1e-12)[-1]])
    below = scores[scores < best]
    return float((best + below.max()) / 2) if len(below) else best
