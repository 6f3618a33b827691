"""Sliding windows on the token grid: where they are, and how their tokens become one volume's.

A volume larger than the patch (or prepared at a finer spacing) is covered by windows of the size
that the encoder knows. Every window is encoded by itself; its tokens are put into the token grid of
the whole volume (averaged where windows overlap), and the whole is pooled once. That is the paper's
protocol for 1 mm evaluation (384^3 in windows of 192^3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from colipri.common.errors import ColipriError

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class WindowPlan:
    """Windows over one volume.

    Attributes:
        grid: Tokens of the whole volume, padding included.
        start: First voxel of that grid in the volume (negative: padding).
        window: Tokens of one window.
        starts: First token of every window in the grid.
    """

    grid: Triple
    start: Triple
    window: Triple
    starts: tuple[Triple, ...]


def plan_windows(
    shape: Sequence[int], window: Sequence[int], token_patch: Sequence[int]
) -> WindowPlan:
    """Plan the fewest windows that cover a volume; the last ones are moved back into the grid.

    Args:
        shape: Voxels of the volume.
        window: Voxels of a window, a multiple of ``token_patch``. Where the volume is smaller, it
            is centred in one window (padding), as at training.
        token_patch: Voxels of a token.

    Raises:
        ColipriError: the window is not a multiple of the token patch.
    """
    if any(size <= 0 or size % step for size, step in zip(window, token_patch, strict=True)):
        raise ColipriError(
            f"window {_by(window)} must be a multiple of the token patch {_by(token_patch)} voxels"
        )
    grid = [
        max(size // step, -(-length // step))
        for length, size, step in zip(shape, window, token_patch, strict=True)
    ]
    start = [
        (length - tokens * step) // 2
        for length, tokens, step in zip(shape, grid, token_patch, strict=True)
    ]
    tokens_of_window = [size // step for size, step in zip(window, token_patch, strict=True)]
    a, b, c = (_starts(whole, part) for whole, part in zip(grid, tokens_of_window, strict=True))
    starts = tuple(product(a, b, c))
    return WindowPlan(_triple(grid), _triple(start), _triple(tokens_of_window), starts)


def cover_body(plan: WindowPlan, body: np.ndarray) -> WindowPlan:
    """Return the windows that are needed for the tokens with body.

    Where windows overlap, every window encodes the shared tokens again, and in another context, so
    that work cannot be shared. It can be saved: along an axis in which fewer windows cover the
    body than the volume, they are placed around the body; a window that shows no body, or only
    body that other windows show as well, is left out.

    Args:
        plan: windows over the volume.
        body: (G0, G1, G2) bool, of the plan's grid.
    """
    if not body.any():
        return replace(plan, starts=())
    axes: list[list[int]] = []
    for axis, (whole, part) in enumerate(zip(plan.grid, plan.window, strict=True)):
        found = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = int(found[0]), int(found[-1]) + 1
        planned = sorted({start[axis] for start in plan.starts})
        if -(-(last - first) // part) == len(planned):
            axes.append(planned)
        elif last - first <= part:
            axes.append([min(max((first + last - part) // 2, 0), whole - part)])
        else:
            axes.append([first + start for start in _starts(last - first, part)])
    a, b, c = axes
    return replace(plan, starts=_without_superfluous(tuple(product(a, b, c)), plan.window, body))


def _without_superfluous(
    starts: tuple[Triple, ...], window: Triple, body: np.ndarray
) -> tuple[Triple, ...]:
    """Leave out windows whose body others show; those with the least body first."""

    def tokens(start: Triple) -> tuple[slice, ...]:
        return tuple(slice(first, first + size) for first, size in zip(start, window, strict=True))

    times = np.zeros(body.shape, np.int32)
    for start in starts:
        times[tokens(start)] += 1
    used = list(starts)
    for start in sorted(starts, key=lambda one: (int(body[tokens(one)].sum()), one)):
        place = tokens(start)
        if not (body[place] & (times[place] < 2)).any():
            times[place] -= 1
            used.remove(start)
    return tuple(used)


def stitch(
    plan: WindowPlan, tokens: Sequence[Tensor], kept: Sequence[Tensor]
) -> tuple[Tensor, np.ndarray]:
    """Join the tokens of all windows to those of the volume.

    Args:
        plan: Of the windows.
        tokens: One (K_w, D) per window.
        kept: One (K_w,) per window: flat index of each token in the window (axis 0 slowest).

    Returns:
        (K, D) float32, the mean of the windows that hold a token, and (K, 3) its positions in the
        grid, in grid order.
    """
    flat = [
        torch.from_numpy(_flat_in_grid(plan, start, index.cpu().numpy()))
        for start, index in zip(plan.starts, kept, strict=True)
    ]
    everywhere, place = torch.unique(torch.cat(flat), sorted=True, return_inverse=True)
    values = torch.cat([part.float().cpu() for part in tokens])
    total = torch.zeros(len(everywhere), values.shape[1]).index_add_(0, place, values)
    count = torch.bincount(place, minlength=len(everywhere)).unsqueeze(1)
    positions = np.stack(np.unravel_index(everywhere.numpy(), plan.grid), axis=1)
    return total / count, positions


def positions_of(index: Tensor, window: Sequence[int]) -> np.ndarray:
    """Return (K, 3) token coordinates of flat indices (axis 0 slowest)."""
    return np.stack(np.unravel_index(index.cpu().numpy(), tuple(window)), axis=1)


def _flat_in_grid(plan: WindowPlan, start: Triple, index: np.ndarray) -> np.ndarray:
    local = np.unravel_index(index, plan.window)
    shifted = tuple(axis + first for axis, first in zip(local, start, strict=True))
    return np.asarray(np.ravel_multi_index(shifted, plan.grid), dtype=np.int64)


def _starts(whole: int, part: int) -> list[int]:
    """First tokens of windows along one axis, evenly spread: 0 and whole - part are among them."""
    count = -(-whole // part)
    if count == 1:
        return [0]
    return [round(step * (whole - part) / (count - 1)) for step in range(count)]


def _triple(values: Sequence[int]) -> Triple:
    a, b, c = (int(value) for value in values)
    return (a, b, c)


def _by(values: Sequence[int]) -> str:
    return " x ".join(str(value) for value in values)
