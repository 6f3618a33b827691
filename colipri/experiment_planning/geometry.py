"""Fitting a token grid over a physical extent: the geometry half of planning, in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TOKEN = 8  # voxels per token and axis; what Primus and the released COLIPRI use
# Spacings are rounded up to a step, so that plans do not differ in the fifth digit.
COARSE_STEP_MM, FINE_STEP_MM = 0.05, 0.001
FINE_BELOW_MM = 0.5
REFINEMENT = 0.95  # factor by which spacings shrink until a tiny body has enough tokens


def round_spacing(value: float, down: bool = False) -> float:
    """The next multiple of the step (tolerant to what floating point adds)."""
    step = COARSE_STEP_MM if value >= FINE_BELOW_MM else FINE_STEP_MM
    steps = math.floor(value / step + 1e-6) if down else math.ceil(value / step - 1e-6)
    return round(max(1, steps) * step, 4)


def covering_extent(extents_mm: np.ndarray, share: float) -> tuple[float, float, float]:
    """The box that holds at least ``share`` of the cases whole, in all three axes at once.

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
    """Tokens per axis that cover ``extent_mm`` at ``spacing_mm``."""
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
    """The finest spacing at which ``extent_mm`` needs at most ``max_tokens`` tokens.

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
    """``spacing_mm``, made finer by one factor until ``extent_mm`` holds ``min_tokens`` tokens."""
    exact = [float(step) for step in spacing_mm]
    spacing = list(exact)
    while math.prod(tokens_for(extent_mm, spacing)) < min_tokens and min(spacing) > FINE_STEP_MM:
        exact = [step * REFINEMENT for step in exact]
        spacing = [round_spacing(step, down=True) for step in exact]
    return spacing[0], spacing[1], spacing[2]


def largest_patch(
    extent_mm: Sequence[float], spacing_mm: Sequence[float], max_tokens: int
) -> tuple[int, int, int]:
    """The largest token grid within the budget, shrunk where it covers the most (nnU-Net's rule).

    Starts from the whole extent and takes one token at a time from the axis whose physical length
    is the longest, so that the patch tends towards a cube in millimetres and never exceeds what the
    images need.
    """
    grid = list(tokens_for(extent_mm, spacing_mm))
    while math.prod(grid) > max_tokens:
        lengths = [n * step if n > 1 else 0.0 for n, step in zip(grid, spacing_mm, strict=True)]
        longest = int(np.argmax(lengths))
        if lengths[longest] == 0.0:
            break
        grid[longest] -= 1
    return grid[0], grid[1], grid[2]
