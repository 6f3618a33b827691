"""Spacing and patch size of 3d_lowres and 3d_fullres, with their reasons."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.common.sizes import show_sizes
from colipri.experiment_planning.geometry import (
    TOKEN,
    covering_extent,
    enough_tokens,
    finest_spacing,
    largest_patch,
    tokens_for,
)

COVERED_SHARE = 0.95  # of the cases lie whole within a 3d_lowres patch
# Thick slices are resampled to at most 3 times the finest axis: tokens of 8 voxels would otherwise
# be so long that several organs fall into one.
MAXIMUM_ANISOTROPY = 3.0
# A report speaks of the whole scan. A window of 3d_fullres that holds less than an eighth of the
# body (half of it along each axis) is rarely what its report describes.
MAXIMUM_WINDOWS = 8
# Fewer tokens leave attention nothing to do: two along each axis.
MINIMUM_TOKENS = 8


@dataclass(frozen=True)
class Geometry:
    """Spacing (mm) and patch (voxels) along the plan's axes, and why."""

    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    reasons: dict[str, str]


def native_spacing(fingerprint: dict[str, Any]) -> list[float]:
    """Median spacing per axis."""
    median = np.median(np.array(fingerprint["spacings"], dtype=float), axis=0)
    if not (np.isfinite(median).all() and median.min() > 0):
        raise ColipriError(
            f"the fingerprint's spacings are not positive (median {median.tolist()}); check the "
            "images with colipri_verify_dataset and extract the fingerprint again"
        )
    return [float(step) for step in median]


def plan_geometry(
    fingerprint: dict[str, Any], budget: int, whole: bool, budget_text: str
) -> Geometry:
    """The geometry of one configuration.

    Args:
        fingerprint: spacings and body extents are used.
        budget: tokens of a patch.
        whole: the body in one patch (3d_lowres), or windows of finer spacing (3d_fullres).
        budget_text: how the budget came about.
    """
    extent = covering_extent(np.array(fingerprint["body_extents_mm"], dtype=float), COVERED_SHARE)
    native = native_spacing(fingerprint)
    windows = 1 if whole else MAXIMUM_WINDOWS
    wanted = finest_spacing(extent, budget * windows, native, MAXIMUM_ANISOTROPY)
    spacing = enough_tokens(extent, wanted, MINIMUM_TOKENS)
    grid = tokens_for(extent, spacing) if whole else largest_patch(extent, spacing, budget)
    body = f"the body of {100 * COVERED_SHARE:.0f} % of the cases ({show_sizes(extent, '.0f')} mm)"
    fits = (
        f"{body} fits into {budget_text}"
        if whole
        else f"{MAXIMUM_WINDOWS} windows hold {body}; a smaller window is rarely what its report "
        "describes"
    )
    reasons = {
        "spacing": _spacing_reason(spacing, wanted, native, extent, fits),
        "patch_size": f"holds the whole of {body}, in multiples of {TOKEN}, not forced to a cube"
        if whole
        else f"the largest window within {budget_text}, no longer along an axis than the body; "
        "whole scans are encoded window by window",
    }
    return Geometry(spacing, (grid[0] * TOKEN, grid[1] * TOKEN, grid[2] * TOKEN), reasons)


def _spacing_reason(
    spacing: Sequence[float],
    wanted: Sequence[float],
    native: Sequence[float],
    extent: Sequence[float],
    fits: str,
) -> str:
    images = f"the images (median {show_sizes(native, '.3g')} mm)"
    if spacing != wanted:
        return (
            f"finer than {images}, so that a body of {show_sizes(extent, '.0f')} mm makes at least "
            f"{MINIMUM_TOKENS} tokens"
        )
    if spacing == finest_spacing(extent, sys.maxsize, native, MAXIMUM_ANISOTROPY):
        limit = f", at most {MAXIMUM_ANISOTROPY:g} times the finest axis"
        return f"that of {images}{limit if max(spacing) < max(native) - 0.05 else ''}: {fits}"
    reason = f"the finest at which {fits}; along no axis finer than {images}"
    if any(step < own - 0.05 for step, own in zip(spacing, native, strict=True)):
        reason += f", but none coarser than {MAXIMUM_ANISOTROPY:g} times another"
    return reason
