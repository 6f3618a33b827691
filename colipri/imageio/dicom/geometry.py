"""Sort DICOM slices along their normal and find what is wrong with the stack.

Instance numbers and file names do not reliably tell where a slice lies; only the position and the
orientation in the patient do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colipri.imageio.dicom.headers import Instance

# Positions are written with two or three decimals; a larger deviation is a missing slice.
SPACING_TOLERANCE_MM = 0.1
_SAME_PLACE_MM = 0.05
_ORIENTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stack:
    """Slices of one grid, sorted by their position along the normal.

    Attributes:
        step: mm between slices along the normal (the median; 0 for one slice).
        shift: mm (along rows' direction, along columns' direction) from one slice to the next;
            nonzero if the gantry was tilted.
        problem: why the slices are not a volume; "" if they are one.
    """

    instances: tuple[Instance, ...]
    step: float
    shift: tuple[float, float]
    problem: str

    @property
    def tilt(self) -> float:
        """Degrees between the normal of the slices and the direction in which they are stacked."""
        return float(np.degrees(np.arctan2(np.hypot(*self.shift), self.step))) if self.step else 0.0

    @property
    def extent(self) -> tuple[float, float]:
        """Lowest and highest position along the normal, mm."""
        along, _ = _coordinates((self.instances[0], self.instances[-1]))
        return float(along[0]), float(along[1])


def axes(instance: Instance) -> np.ndarray:
    """(3, 3): rows' direction, columns' direction and normal of a slice, one per row."""
    row, column = np.array(instance.orientation).reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)])


def split_by_grid(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Group by size, pixel spacing and orientation; the largest group first."""
    groups: list[list[Instance]] = []
    for instance in instances:
        for group in groups:
            if _same_grid(group[0], instance):
                group.append(instance)
                break
        else:
            groups.append([instance])
    return sorted(groups, key=len, reverse=True)


def stack_slices(instances: Sequence[Instance]) -> Stack:
    """Sort slices of one grid by position and check that they make a volume."""
    along, in_plane = _coordinates(instances)
    order = np.argsort(along, kind="stable")
    ordered = tuple(instances[n] for n in order)
    if len(ordered) < 2:
        return Stack(ordered, 0.0, (0.0, 0.0), "a single slice is not a volume")
    along, in_plane = along[order], in_plane[order]
    gaps = np.diff(along)
    step = float(np.median(gaps))
    span = max(float(along[-1] - along[0]), 1e-6)
    shift = (in_plane[-1] - in_plane[0]) / span * step
    problem = _spacing_problem(along, gaps, step) or _shift_problem(
        in_plane, along, ordered[0].spacing
    )
    # A drift of less than a pixel over the whole stack is rounding, not a tilted gantry.
    if np.abs(in_plane[-1] - in_plane[0]).max() < min(ordered[0].spacing):
        shift = np.zeros(2)
    return Stack(ordered, step, (float(shift[0]), float(shift[1])), problem)


def has_repeated_places(instances: Sequence[Instance]) -> bool:
    """True if two slices lie at the same place."""
    along, _ = _coordinates(instances)
    return bool((np.diff(np.sort(along)) < _SAME_PLACE_MM).any())


def places(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Slices grouped by place, in order along the normal."""
    along, _ = _coordinates(instances)
    result: list[list[Instance]] = []
    last = -np.inf
    for n in np.argsort(along, kind="stable"):
        if along[n] - last < _SAME_PLACE_MM:
            result[-1].append(instances[n])
        else:
            result.append([instances[n]])
            last = along[n]
    return result


def _coordinates(instances: Sequence[Instance]) -> tuple[np.ndarray, np.ndarray]:
    """Position along the normal (n), and within the plane (n, 2), in mm."""
    positions = np.array([instance.position for instance in instances]) @ axes(instances[0]).T
    return positions[:, 2], positions[:, :2]


def _same_grid(a: Instance, b: Instance) -> bool:
    return (
        (a.rows, a.columns) == (b.rows, b.columns)
        and np.allclose(a.spacing, b.spacing, rtol=1e-3, atol=0)
        and np.allclose(a.orientation, b.orientation, rtol=0, atol=_ORIENTATION_TOLERANCE)
    )


def _spacing_problem(along: np.ndarray, gaps: np.ndarray, step: float) -> str:
    if gaps.min() < _SAME_PLACE_MM:
        count = int((gaps < _SAME_PLACE_MM).sum())
        return f"slices lie where others lie: {count}, first at {along[gaps.argmin()]:g} mm"
    if gaps.max() - gaps.min() <= SPACING_TOLERANCE_MM:
        return ""
    multiples = np.round(gaps / step)
    wide = np.flatnonzero(multiples > 1)
    even = np.abs(gaps - multiples * step) <= SPACING_TOLERANCE_MM * np.maximum(multiples, 1)
    if len(wide) and multiples.min() >= 1 and even.all():
        missing = int((multiples - 1).sum())
        places = ", ".join(f"{along[n] + step:g}" for n in wide[:3])
        return f"slices are missing: {missing}, near {places} mm; they lie {step:g} mm apart"
    return (
        f"the slices are unevenly spaced: {gaps.min():g} to {gaps.max():g} mm, near "
        f"{along[np.abs(gaps - step).argmax()]:g} mm; slices are missing, or two series are mixed"
    )


def _shift_problem(in_plane: np.ndarray, along: np.ndarray, spacing: tuple[float, ...]) -> str:
    """Slices must lie on a straight line: the table must not have moved sideways."""
    fraction = (along - along[0]) / max(along[-1] - along[0], 1e-6)
    straight = in_plane[0] + fraction[:, None] * (in_plane[-1] - in_plane[0])
    off = np.abs(in_plane - straight).max()
    if off > max(spacing):
        return f"the slices are shifted against each other: by up to {off:.1f} mm in their plane"
    return ""
