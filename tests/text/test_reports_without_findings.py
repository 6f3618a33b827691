"""Counting reports that describe nothing in the image."""

from __future__ import annotations

from typing import Any

import pytest

from colipri.common.errors import ColipriError
from colipri.text.reports.report import report_from_text
from colipri.text.reports_without_findings import (
    MAX_SHARE,
    SHARE_KEY,
    allowed_share,
    describe_missing,
    require_findings,
)
from colipri.text.structured_report import structure_report


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: Small effusion.", True),
        ("FINDINGS: No effusion.", True),
        ("FINDINGS: Possible effusion.", True),
        ("FINDINGS: Plevral efüzyon izlenmedi.", False),
        ("INDICATION: effusion. COMPARISON: None.", False),
        ("", False),
    ],
)
def test_what_describes_an_image(text: str, expected: bool) -> None:
    assert structure_report(report_from_text(text)).has_findings is expected


@pytest.mark.parametrize(("without", "total"), [(2, 39), (40, 40), (2, 2), (51, 1000)])
def test_more_than_the_share_is_an_error(without: int, total: int) -> None:
    with pytest.raises(ColipriError, match=f"{without} of {total:,} reports .* more than the 5%"):
        require_findings(without, total, MAX_SHARE)


@pytest.mark.parametrize(("without", "total"), [(0, 0), (1, 2), (2, 40), (50, 1000)])
def test_a_few_are_not(without: int, total: int) -> None:
    require_findings(without, total, MAX_SHARE)


def test_a_data_set_may_allow_all() -> None:
    require_findings(40, 40, allowed_share({SHARE_KEY: 1.0}))
    assert allowed_share({}) == MAX_SHARE


@pytest.mark.parametrize("value", [-0.1, 1.5, "half", True, None])
def test_a_wrong_share_is_named(value: Any) -> None:
    with pytest.raises(ColipriError, match=f"{SHARE_KEY} must be a number from 0 to 1"):
        allowed_share({SHARE_KEY: value})


def test_the_phrase_has_both_counts() -> None:
    assert describe_missing(3, 1200).startswith("3 of 1,200 reports (0.2%) describe nothing")
