"""Fingerprints of data sets that cannot be shipped, with everything that planning reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVELS = (5, 50, 95, 99, 100)


def make_fingerprint(
    spacings: Sequence[Sequence[float]],
    extents: Sequence[Sequence[float]],
    num_studies: int | None = None,
    num_paired_studies: int | None = None,
    channel_names: dict[str, str] | None = None,
    words_per_report: float = 250.0,
    repeated_words: int = 15_000,
    name: str = "Dataset101_Chest",
    body_fraction: float = 0.55,
) -> dict[str, Any]:
    """A fingerprint as colipri_extract_fingerprint writes it.

    Args:
        spacings, extents: mm per case along (Superior, Anterior, Right).
        num_studies: default: as many as spacings.
        num_paired_studies: with a report; default: all.
    """
    boxes = np.asarray(extents, dtype=float)
    studies = len(spacings) if num_studies is None else num_studies
    paired = studies if num_paired_studies is None else num_paired_studies
    channels = channel_names or {"0": "CT"}
    intensities = {
        "mean": -280.0,
        "median": -60.0,
        "std": 420.0,
        "min": -1024.0,
        "max": 3071.0,
        "percentile_00_5": -1010.0,
        "percentile_99_5": 620.0,
    }
    return {
        "fingerprint_version": 1,
        "dataset_name": name,
        "channel_names": channels,
        "num_cases": studies,
        "num_subjects": studies,
        "num_studies": studies,
        "num_paired_cases": paired,
        "num_paired_studies": paired,
        "num_image_only_cases": studies - paired,
        "num_by_split": {"unassigned": studies},
        "spacings": [list(map(float, row)) for row in spacings],
        "shapes_after_crop": [
            [round(e / s) for e, s in zip(*rows, strict=True)]
            for rows in zip(boxes, spacings, strict=True)
        ],
        "foreground_intensity_properties_per_channel": {
            number: dict(intensities) for number in channels
        },
        "body_extents_mm": boxes.round(2).tolist(),
        "body_extent_mm_percentiles": {
            str(level): np.percentile(boxes, level, axis=0).round(2).tolist() for level in LEVELS
        },
        "body_fraction_median": body_fraction,
        "orientations": {"LPS": studies},
        "dtypes": {"int16": studies},
        "findings": {},
        "text": _text(paired, words_per_report, repeated_words),
        "left_out": {},
    }


def ct_rate_like() -> dict[str, Any]:
    """Numbers of cases, spacings and extents like those of CT-RATE's training split.

    500 made-up cases with a median of 0.7 x 0.7 x 1.25 mm and 340-400 x 340-400 x 300-400 mm stand
    for its 20,000 studies (24,128 volumes in version 1).
    """
    rng = np.random.default_rng(2024)
    count = 500
    in_plane = np.clip(rng.normal(0.7, 0.06, count), 0.55, 0.95).round(3)
    slices = rng.choice([1.0, 1.25, 1.5, 3.0], count, p=[0.4, 0.25, 0.25, 0.1])
    spacings = np.stack([slices, in_plane, in_plane], axis=1)
    low, high = np.array([300.0, 340.0, 340.0]), np.array([400.0, 400.0, 400.0])
    extents = rng.uniform(low, high, (count, 3))
    return make_fingerprint(
        spacings.tolist(), extents.tolist(), 20_000, name="Dataset101_LikeCTRATE"
    )


def _text(reports: int, words: float, repeated_words: int) -> dict[str, Any]:
    shares = {"05": 0.3, "25": 0.7, "50": 0.95, "75": 1.2, "95": 1.6, "99": 1.9, "100": 3.0}
    tokens: dict[str, Any] = {f"percentile_{k}": words * v for k, v in shares.items()}
    if not reports:
        tokens = dict.fromkeys(tokens)
    return {
        "num_reports": reports,
        "num_empty_reports": 0,
        "tokens_per_report": {**tokens, "mean": words if reports else None},
        "num_sentences": reports * 12,
        "vocabulary": {
            "distinct_words": repeated_words * 2 if reports else 0,
            "distinct_words_seen_twice": repeated_words if reports else 0,
        },
    }
