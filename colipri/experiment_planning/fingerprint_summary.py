"""A fingerprint in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from colipri.common.sizes import show_sizes
from colipri.raw_dataset.left_out import UNREADABLE, describe_left_out


def left_out_of(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Case -> "code: reason" of the cases that the fingerprint does not count.

    Version 0.2.0 wrote a list of "case: reason".
    """
    stored = fingerprint.get("left_out") or {}
    if isinstance(stored, Mapping):
        return dict(stored)
    pairs = [line.partition(": ") for line in stored]
    return {case: f"{UNREADABLE}: {reason}" for case, _, reason in pairs}


def summarize_fingerprint(fingerprint: Mapping[str, Any]) -> str:
    """What was found, for a person to check at a glance."""
    spacing = np.median(np.array(fingerprint["spacings"]), axis=0)
    extent = fingerprint["body_extent_mm_percentiles"]["95"]
    text = fingerprint["text"]
    words = text["tokens_per_report"]
    lines = [
        f"{fingerprint['dataset_name']}: {fingerprint['num_cases']} cases of "
        f"{fingerprint['num_subjects']} subjects for training and validation, "
        f"{fingerprint['num_paired_studies']} studies with a report, "
        f"{fingerprint['num_image_only_cases']} cases without one",
        f"  median spacing {show_sizes(spacing, '.3g')} mm, body of 95 % within "
        f"{show_sizes(extent, '.0f')} mm, "
        f"body fills {fingerprint['body_fraction_median']:.0%} of its box",
    ]
    if words.get("mean"):
        repeated = text["vocabulary"]["distinct_words_seen_twice"]
        lines.append(
            f"  reports: {words['mean']:.0f} words on average, 99 % at most "
            f"{words['percentile_99']:.0f}; {repeated:,} words occur at least twice"
        )
    for code, entry in fingerprint["hounsfield"]["remarks"].items():
        lines.append(
            f"  {entry['cases']} of {fingerprint['hounsfield']['checked']} CTs: {code} (first: "
            f"{entry['first']}); colipri_verify_dataset explains it"
        )
    if fingerprint["left_out"]:
        lines.append(f"  {describe_left_out(left_out_of(fingerprint))}; the file has the reasons")
    return "\n".join(lines)
