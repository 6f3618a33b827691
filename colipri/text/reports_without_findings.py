"""Reports that say nothing about the image: no sentence affirms, doubts or denies anything.

A layout or a language that the rules cannot read leaves reports of neutral sentences, from which
nothing is learned. Verification, fingerprint and training count them, and refuse a data set in
which they are more than a stated share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.common.errors import ColipriError

# Of 3,826 public chest reports the rules find nothing in 2 (0.05 %). A layout or a language that
# they cannot read concerns most reports of a hospital, so a share a hundred times as large tells
# the two apart, and does not stop a data set because of a few odd reports.
MAX_SHARE = 0.05
FEWEST = 2  # a single report is an oddity, however few there are
SHARE_KEY = "max_share_without_findings"  # in dataset.json
REMEDY = (
    "check their headings and language, or let a language model structure them "
    "(colipri_structure_reports --base_url); if it is intended, allow it with "
    f'"{SHARE_KEY}": 1.0 in dataset.json'
)


def allowed_share(description: Mapping[str, Any]) -> float:
    """The share of reports without findings that a data set allows.

    Args:
        description: the content of dataset.json.

    Raises:
        ColipriError: the value is not a number from 0 to 1.
    """
    share = description.get(SHARE_KEY, MAX_SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ColipriError(f"{SHARE_KEY} must be a number from 0 to 1, not {share}")
    return float(share)


def describe_missing(without: int, total: int) -> str:
    """One phrase: "3 of 120 reports (2.5%) describe nothing in the image"."""
    return (
        f"{without:,} of {total:,} reports ({without / max(total, 1):.1%}) describe nothing in the "
        "image (no sentence affirms, doubts or denies anything)"
    )


def too_many(without: int, total: int, share: float) -> bool:
    """True if more reports than the allowed share describe nothing in the image.

    Args:
        without: how many describe nothing.
        total: how many there are.
        share: that is allowed.
    """
    return without >= FEWEST and without > share * total


def require_findings(without: int, total: int, share: float) -> None:
    """Check that not too many reports describe nothing in the image.

    Args:
        without: how many describe nothing.
        total: how many there are.
        share: that is allowed.

    Raises:
        ColipriError: they are more.
    """
    if too_many(without, total, share):
        raise ColipriError(
            f"{describe_missing(without, total)}, more than the {share:.0%} allowed; {REMEDY}"
        )
