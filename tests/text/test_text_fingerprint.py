"""Statistics of reports, against numbers counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from colipri.text.reports.report import Report, report_from_text
from colipri.text.structured_report import StructuredReport, structure_report
from colipri.text.text_fingerprint import text_fingerprint

TEXTS = [
    "FINDINGS: Small left effusion. No nodule.\nIMPRESSION: Effusion.",
    "FINDINGS: Small  left\neffusion. No nodule.\nIMPRESSION: Effusion.",  # the same text
    "TECHNIQUE: CT.\nFINDINGS: Possible nodule of 3.5 mm.",
]


def structured(texts: list[str]) -> Iterator[StructuredReport]:
    for text in texts:
        yield structure_report(report_from_text(text))
    yield structure_report(Report({}))


def test_counts() -> None:
    result = text_fingerprint(structured(TEXTS))
    assert result["num_reports"] == 4
    assert result["num_empty_reports"] == 1
    # "Small left effusion . No nodule . Effusion ." = 9; "CT . Possible nodule of 3 . 5 mm ." = 10
    assert result["tokens_per_report"]["percentile_05"] == 9
    assert result["tokens_per_report"]["percentile_50"] == 9
    assert result["tokens_per_report"]["percentile_100"] == 10
    assert result["tokens_per_report"]["mean"] == pytest.approx(28 / 3)
    assert result["num_sentences"] == 8
    assert result["sentences_per_report"]["percentile_100"] == 3
    assert result["sections"] == {
        "findings": {"reports": 3, "sentences": 5},
        "impression": {"reports": 2, "sentences": 2},
        "technique": {"reports": 1, "sentences": 1},
    }
    assert result["polarity"] == {"positive": 4, "negative": 2, "uncertain": 1, "neutral": 1}
    assert result["duplicates"]["distinct_texts"] == 2
    assert result["duplicates"]["texts_shared_by_several_reports"] == 1
    assert result["duplicates"]["reports_with_a_shared_text"] == 2
    assert result["num_reports_naming_a_side"] == 2
    # small left effusion no nodule ct possible of mm; seen twice: small left effusion no nodule
    assert result["vocabulary"] == {"distinct_words": 9, "distinct_words_seen_twice": 5}
    json.dumps(result, allow_nan=False)


def test_no_reports_at_all() -> None:
    result = text_fingerprint([])
    assert result["num_reports"] == 0
    assert result["tokens_per_report"]["percentile_50"] is None
    assert result["tokens_per_report"]["mean"] is None
    json.dumps(result, allow_nan=False)


def test_the_percentiles_that_the_format_names() -> None:
    keys = text_fingerprint(structured(TEXTS))["tokens_per_report"]
    names = {f"percentile_{number}" for number in ("05", "25", "50", "75", "95", "99", "100")}
    assert set(keys) == {"counted_by", "mean", *names}
