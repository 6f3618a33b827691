"""Does the generator write different reports for different patients?

Text measures stay high for a generator that writes one normal report for everybody ("template
collapse"). The same figures of the reference reports stand beside those of the generated ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from colipri.report_metrics.findings import FindingLabels
from colipri.report_metrics.report_pairs import JudgedText, ReportPairs
from colipri.text.prompts.same_text import report_sentences


def collapse_measures(pairs: ReportPairs, labels: FindingLabels) -> dict[str, Any]:
    """Return how different the reports are, and which findings are never written.

    Two reports are the same if they consist of the same sentences, in any order.

    Args:
        pairs: n reports each.
        labels: Of the same reports.
    """
    positive = (labels.reference == 1).any(axis=0)
    written = (labels.generated == 1).any(axis=0)
    pairs_of = zip(labels.names, positive, written, strict=True)
    never = [name for name, there, wrote in pairs_of if there and not wrote]
    return {
        "generated": _variety(pairs.generated),
        "reference": _variety(pairs.references),
        "findings_never_written": never,
        "findings_in_references": int(positive.sum()),
    }


def _variety(texts: Sequence[JudgedText]) -> dict[str, Any]:
    keys = Counter(report_sentences(text.structured) for text in texts)
    sentences = Counter(s for text in texts for s in report_sentences(text.structured))
    words = [len(text.text.split()) for text in texts]
    return {
        "distinct_reports": len(keys),
        "share_of_distinct": len(keys) / len(texts),
        "share_of_most_frequent": max(keys.values()) / len(texts),
        "distinct_sentences": len(sentences),
        "mean_words": sum(words) / len(words),
        "empty": sum(count == 0 for count in words),
    }
