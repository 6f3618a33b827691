"""Spacing and patch size of 3d_lowres and 3d_fullres: a token grid over a physical extent."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.display import show_sizes
from colipri.common.errors import ColipriError

TOKEN = 8  # voxels per token and axis; what Primus and the released COLIPRI use
# Spacings are rounded up to a step, so that plans do not differ in the fifth digit.
COARSE_STEP_MM, FINE_STEP_MM = 0.05, 0.001
FINE_BELOW_MM = 0.5
REFINEMENT = 0.95  # factor by which spacings shrink until a tiny body has enough tokens


def round_spacing(value: float, down: bool = False) -> float:
    """Return the next multiple of the step (tolerant to what floating point adds)."""
    step = COARSE_STEP_MM if value >= FINE_BELOW_MM else FINE_STEP_MM
    steps = math.floor(value / step + 1e-6) if down else math.ceil(value / step - 1e-6)
    return round(max(1, steps) * step, 4)


def covering_extent(extents_mm: np.ndarray, share: float) -> tuple[float, float, float]:
    """Return the box that holds at least ``share`` of the cases whole, in all three axes at once.

    Each axis by itself at its 95th percentile would hold as few as 85 % of the cases; the
    percentile, the same one for all axes, is raised until the box holds enough.

    Args:
        extents_mm: (cases, 3).
        share: of the cases, at most 1.
    """
    for percentile in np.arange(100 * share, 100, 0.5):
        box = np.percentile(extents_mm, percentile, axis=0)
        if (extents_mm <= box + 1e-9).all(axis=1).mean() >= share:
            break
    else:
        box = extents_mm.max(axis=0)
    a, b, c = (round(float(length), 2) for length in box)
    return a, b, c


def tokens_for(extent_mm: Sequence[float], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Return the tokens per axis that cover ``extent_mm`` at ``spacing_mm``."""
    a, b, c = (
        max(1, math.ceil(length / (step * TOKEN) - 1e-6))
        for length, step in zip(extent_mm, spacing_mm, strict=True)
    )
    return a, b, c


def finest_spacing(
    extent_mm: Sequence[float],
    max_tokens: int,
    native_mm: Sequence[float],
    max_anisotropy: float,
) -> tuple[float, float, float]:
    """Return the finest spacing at which ``extent_mm`` needs at most ``max_tokens`` tokens.

    One number for all axes, but never finer along an axis than the images are there (slices of 5 mm
    hold nothing that tokens of 1 mm could see), unless the tokens became too long.

    Args:
        extent_mm: per axis.
        max_tokens: budget of the whole grid.
        native_mm: spacing of the images per axis.
        max_anisotropy: no axis is coarser than this times the finest one.
    """
    common = round_spacing(min(native_mm))
    while True:
        a, b, c = (
            round_spacing(min(max(common, step), max_anisotropy * common)) for step in native_mm
        )
        tokens = math.prod(tokens_for(extent_mm, (a, b, c)))
        if tokens <= max_tokens:
            return a, b, c
        # far above the budget in large steps: twice the spacing is at least an eighth of the tokens
        bound = common * (tokens / max_tokens / 8) ** (1 / 3)
        common = round_spacing(max(bound, common + FINE_STEP_MM))


def enough_tokens(
    extent_mm: Sequence[float], spacing_mm: Sequence[float], min_tokens: int
) -> tuple[float, float, float]:
    """Return ``spacing_mm``, made finer by one factor until ``extent_mm`` holds ``min_tokens``
    tokens.

    Args:
        extent_mm: Of the body per axis.
        spacing_mm: To begin with, per axis.
        min_tokens: Of the whole grid.
    """
    exact = [float(step) for step in spacing_mm]
    spacing = list(exact)
    while math.prod(tokens_for(extent_mm, spacing)) < min_tokens and min(spacing) > FINE_STEP_MM:
        exact = [step * REFINEMENT for step in exact]
        spacing = [round_spacing(step, down=True) for step in exact]
    return spacing[0], spacing[1], spacing[2]


def largest_patch(
    extent_mm: Sequence[float], spacing_mm: Sequence[float], max_tokens: int
) -> tuple[int, int, int]:
    """Return the largest token grid within the budget, shrunk where it covers the most (nnU-Net's
    rule).

    Starts from the whole extent and takes one token at a time from the axis whose physical length
    is the longest, so that the patch tends towards a cube in millimetres and never exceeds what the
    images need.

    Args:
        extent_mm: Of the body per axis.
        spacing_mm: Per axis.
        max_tokens: Budget of the whole grid.
    """
    grid = list(tokens_for(extent_mm, spacing_mm))
    while math.prod(grid) > max_tokens:
        lengths = [n * step if n > 1 else 0.0 for n, step in zip(grid, spacing_mm, strict=True)]
        longest = int(np.argmax(lengths))
        if lengths[longest] == 0.0:
            break
        grid[longest] -= 1
    return grid[0], grid[1], grid[2]


COVERED_SHARE = 0.95  # of the cases lie whole within a 3d_lowres patch
# Thick slices are resampled to at most 3 times the finest axis: tokens of 8 voxels would otherwise
# be so long that several organs fall into one.
MAXIMUM_ANISOTROPY = 3.0
# A report speaks of the whole scan. A window of 3d_fullres that holds less than an eighth of the
# body (half of it along each axis) is rarely what its report describes.
MAXIMUM_WINDOWS = 8
# Fewer tokens leave attention nothing to do: two along each axis.
MINIMUM_TOKENS = 8


# One wrong spacing among few cases would decide the plan, because a patch must hold 95 % of the
# cases, which is all of fewer than 20. A case is set aside where, along an axis, its voxels are
# more than twice as long as usual (the median), and so is its body, while it has no more voxels
# than usual (1.5 times): its length then comes from the spacing and not from a longer scan. At most
# one case, or 5 % of them.
OUTLIER_FACTOR = 2.0
OUTLIER_VOXELS = 1.5
OUTLIER_SHARE = 0.05
FEWEST_FOR_OUTLIERS = 3


def spacing_outliers(
    spacings: Sequence[Sequence[float]],
    extents_mm: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
) -> list[int]:
    """Return the indices of cases whose spacing is probably wrong; [] if they are too many.

    Args:
        spacings: (cases, 3), mm.
        extents_mm: (cases, 3), of the bodies.
        shapes: (cases, 3), voxels of the bodies' boxes.
    """
    count = len(spacings)
    if count < FEWEST_FOR_OUTLIERS:
        return []
    step, length, voxels = (
        values / np.maximum(np.median(values, axis=0), 1e-9)
        for values in (np.array(v, dtype=float) for v in (spacings, extents_mm, shapes))
    )
    wrong = (step > OUTLIER_FACTOR) & (length > OUTLIER_FACTOR) & (voxels < OUTLIER_VOXELS)
    found = np.flatnonzero(wrong.any(axis=1)).tolist()
    return found if len(found) <= max(1, int(OUTLIER_SHARE * count)) else []


@dataclass(frozen=True)
class Geometry:
    """Spacing (mm) and patch (voxels) along the plan's axes, and why."""

    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    reasons: dict[str, str]


def native_spacing(fingerprint: dict[str, Any]) -> list[float]:
    """Return the median spacing per axis, without cases whose spacing is probably wrong."""
    median = np.median(_typical(fingerprint, "spacings"), axis=0)
    if not (np.isfinite(median).all() and median.min() > 0):
        raise ColipriError(
            f"the fingerprint's spacings are not positive (median {median.tolist()}); check the "
            "images with colipri_verify_dataset and extract the fingerprint again"
        )
    return [float(step) for step in median]


def _typical(fingerprint: dict[str, Any], key: str) -> np.ndarray:
    """Return (cases, 3) of a list in the fingerprint, without the spacing outliers."""
    values = np.array(fingerprint[key], dtype=float)
    aside = [outlier["index"] for outlier in fingerprint.get("spacing_outliers", [])]
    return np.delete(values, aside, axis=0)


def plan_geometry(
    fingerprint: dict[str, Any], budget: int, whole: bool, budget_text: str
) -> Geometry:
    """Plan the geometry of one configuration.

    Args:
        fingerprint: spacings and body extents are used.
        budget: tokens of a patch.
        whole: the body in one patch (3d_lowres), or windows of finer spacing (3d_fullres).
        budget_text: how the budget came about.
    """
    extent = covering_extent(_typical(fingerprint, "body_extents_mm"), COVERED_SHARE)
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
    aside = [outlier["case"] for outlier in fingerprint.get("spacing_outliers", [])]
    if aside:
        reasons["spacing"] += f"; planned without {', '.join(aside)}, whose spacing may be wrong"
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
