"""Findings of reports compared: precision, recall and F1 per finding, macro, micro; and CRG.

Precision without a finding written, and F1 without a hit, are 0 (scikit-learn's zero_division=0). A
finding that no reference affirms has neither recall nor F1; it is named and left out of the macro
mean, and its false alarms still count in the micro mean and in CRG.

CRG (Hamamci et al., arXiv 2505.17167): with X known labels of which A are positive, r = (X - A) /
(2 A), U = (X - A) / 2 and s = r TP - r FN - FP, the score is U / (2 U - s): 1 for a perfect report,
1/3 for reports that affirm nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.report_metrics.resampling import Measured, Resamples, measure, ratio

SCORES = ("precision", "recall", "f1")
SUMMARY = (*(f"macro_{s}" for s in SCORES), *(f"micro_{s}" for s in SCORES), "crg")
EMPTY_CRG = 1 / 3  # of reports that affirm nothing


@dataclass(frozen=True)
class FindingLabels:
    """Findings of reference and generated reports.

    Attributes:
        names: F names.
        reference: (n, F) of 0, 1 and NaN (doubted or unknown: left out of this finding).
        generated: (n, F) of 0 and 1.
        source: Who read the reports, in words.
    """

    names: tuple[str, ...]
    reference: np.ndarray
    generated: np.ndarray
    source: str

    def __post_init__(self) -> None:
        shape = (len(self.reference), len(self.names))
        if self.reference.shape != shape or self.generated.shape != shape:
            raise ColipriError(
                f"findings of {self.source}: reference {self.reference.shape} and generated "
                f"{self.generated.shape} must both be (cases, {len(self.names)} findings)"
            )
        if not (np.isnan(self.reference) | np.isin(self.reference, (0.0, 1.0))).all():
            raise ColipriError(f"findings of {self.source} must be 0, 1 or unknown")
        if not np.isin(self.generated, (0.0, 1.0)).all():
            raise ColipriError(f"findings of {self.source} in generated reports must be 0 or 1")


def finding_metrics(labels: FindingLabels, resamples: Resamples) -> dict[str, Measured]:
    """Return the metrics of :data:`SUMMARY`, each on all cases and on every resample.

    Args:
        labels: Of n cases.
        resamples: Of the patients of the cases.
    """
    counts = _counts(labels)
    size = len(labels.names)
    defined = counts[:, :size].sum(axis=0) + counts[:, 2 * size : 3 * size].sum(axis=0) > 0
    result: dict[str, Measured] = {}
    for score in SCORES:

        def macro(sums: np.ndarray, score: str = score) -> np.ndarray:
            values = np.where(defined, _per_finding(sums, size)[score], np.nan)
            known = np.isfinite(values)
            return ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))

        def micro(sums: np.ndarray, score: str = score) -> np.ndarray:
            pooled = sums.reshape(len(sums), 4, size).sum(axis=2)
            return _per_finding(pooled, 1)[score][:, 0]

        result[f"macro_{score}"] = measure(counts, macro, resamples)
        result[f"micro_{score}"] = measure(counts, micro, resamples)
    result["crg"] = measure(counts, lambda sums: _crg(sums, size), resamples)
    return {name: result[name] for name in SUMMARY}


def per_finding(labels: FindingLabels, resamples: Resamples) -> dict[str, dict[str, Any]]:
    """Return per finding precision, recall, F1 with intervals, and how often it is present.

    Args:
        labels: Of n cases.
        resamples: Of the patients of the cases.
    """
    counts, size = _counts(labels), len(labels.names)
    entries = {}
    for index, name in enumerate(labels.names):
        column = counts[:, [index, size + index, 2 * size + index, 3 * size + index]]
        truth = labels.reference[:, index]
        entry: dict[str, Any] = {
            "positives": int((truth == 1).sum()),
            "negatives": int((truth == 0).sum()),
            "unknown": int(np.isnan(truth).sum()),
            "written": int(column[:, :2].sum()),
        }
        for score in SCORES:

            def of_finding(sums: np.ndarray, score: str = score) -> np.ndarray:
                return _per_finding(sums, 1)[score][:, 0]

            entry[score] = measure(column, of_finding, resamples).to_dict()
        entries[name] = entry
    return entries


def findings_without_positives(labels: FindingLabels) -> list[str]:
    """Return the findings that no reference affirms: they have no F1."""
    has = (labels.reference == 1).any(axis=0)
    return [name for name, there in zip(labels.names, has, strict=True) if not there]


def _counts(labels: FindingLabels) -> np.ndarray:
    """(n, 4 F): true positives, false positives, false negatives, true negatives per finding."""
    known = np.isfinite(labels.reference)
    truth, written = labels.reference == 1, labels.generated == 1
    return np.concatenate(
        [truth & written, known & ~truth & written, truth & ~written, known & ~truth & ~written],
        axis=1,
    ).astype(float)


def _per_finding(sums: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Score -> (R, size); NaN without a positive, 0 for what is not written."""
    hits, alarms, misses, _ = (sums[:, i * size : (i + 1) * size] for i in range(4))
    none = hits + misses == 0
    values = {
        "precision": ratio(hits, hits + alarms, otherwise=0.0),
        "recall": ratio(hits, hits + misses),
        "f1": ratio(2 * hits, 2 * hits + alarms + misses, otherwise=0.0),
    }
    return {name: np.where(none, np.nan, value) for name, value in values.items()}


def _crg(sums: np.ndarray, size: int) -> np.ndarray:
    hits, alarms, misses, rest = (sums[:, i * size : (i + 1) * size].sum(axis=1) for i in range(4))
    positives = hits + misses
    negatives = alarms + rest
    weight = ratio(negatives, 2 * positives)
    most = negatives / 2
    score = weight * hits - weight * misses - alarms
    return ratio(most, 2 * most - score)
