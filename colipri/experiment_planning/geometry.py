"""Fitting a token grid over a physical extent: the geometry half of planning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TOKEN = 8  # voxels per token and axis; what Primus and the released COLIPRI use
# Spacings are rounded up to this step, so that plans do not differ in the fifth digit.
SPACING_STEP_MM = 0.05


def round_up(value: float, step: float) -> float:
    """The next multiple of ``step`` (tolerant to what floating point adds)."""
    return round(math.ceil(value / step - 1e-6) * step, 4)


def tokens_for(extent_mm: Sequence[float], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Tokens per axis that cover ``extent_mm`` at ``spacing_mm``."""
    a, b, c = (
        max(1, math.ceil(length / (step * TOKEN) - 1e-6))
        for length, step in zip(extent_mm, spacing_mm, strict=True)
    )
    return a, b, c


def finest_isotropic_spacing(
    extent_mm: Sequence[float], max_tokens: int, at_least_mm: float
) -> float:
    """The finest isotropic spacing at which ``extent_mm`` needs at most ``max_tokens`` tokens.

    Args:
        extent_mm: per axis.
        max_tokens: budget of the whole grid.
        at_least_mm: never finer than this (the images hold nothing finer).
    """
    volume = float(np.prod(np.asarray(extent_mm, dtype=float)))
    lower_bound = (volume / max_tokens) ** (1 / 3) / TOKEN
    spacing = round_up(max(lower_bound, at_least_mm, SPACING_STEP_MM), SPACING_STEP_MM)
    while math.prod(tokens_for(extent_mm, (spacing,) * 3)) > max_tokens:
        spacing = round(spacing + SPACING_STEP_MM, 4)
    return spacing


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
