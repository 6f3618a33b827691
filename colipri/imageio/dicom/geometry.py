"""Sort DICOM slices along their normal and find what is wrong with the stack.

Instance numbers and file names do not reliably tell where a slice lies; only the position and the
orientation in the patient do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colipri.imageio.dicom.headers import Instance

# By how much a slice may lie off its place on a straight line. Positions are written with one to
# three decimals, and rounding moves a slice, and the line's ends, by half of the last digit.
SPACING_TOLERANCE_MM = 0.1
_LARGEST_SHIFT = 0.4  # of the slice distance: a missing slice moves others by half of it and more
_SAME_PLACE_MM = 0.05
_ORIENTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stack:
    """Slices of one grid, sorted by their position along the normal.

    Attributes:
        step: mm between slices along the normal, from the first and last (0 for one slice). The
            median distance of neighbours would add up rounding: 1.5 mm over 300 slices.
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
    span = max(float(along[-1] - along[0]), 1e-6)
    step = span / (len(ordered) - 1)
    shift = (in_plane[-1] - in_plane[0]) / (len(ordered) - 1)
    problem = _spacing_problem(along, step, _last_digit(instances)) or _shift_problem(
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


def _last_digit(instances: Sequence[Instance]) -> float:
    """The unit of the last digit that positions are written with, mm: 0.1, 0.01, ..."""
    positions = np.array([instance.position for instance in instances])
    for decimals in range(4):
        if np.allclose(positions, np.round(positions, decimals), rtol=0, atol=1e-7):
            return float(10.0**-decimals)
    return 1e-4


def _spacing_problem(along: np.ndarray, step: float, digit: float) -> str:
    """Compare places along the normal with those of a straight line through the ends."""
    gaps = np.diff(along)
    if gaps.min() < _SAME_PLACE_MM:
        count = int((gaps < _SAME_PLACE_MM).sum())
        return f"slices lie where others lie: {count}, first at {along[gaps.argmin()]:g} mm"
    off = np.abs(along - along[0] - step * np.arange(len(along)))
    tolerance = max(SPACING_TOLERANCE_MM, digit if digit < 1 else 0.0)
    if off.max() <= min(tolerance, _LARGEST_SHIFT * step) + 1e-6:
        return ""
    usual = float(np.median(gaps))
    multiples = np.round(gaps / usual)
    wide = np.flatnonzero(multiples > 1)
    even = np.abs(gaps - multiples * usual) <= tolerance * np.maximum(multiples, 1)
    if len(wide) and multiples.min() >= 1 and even.all():
        missing = int((multiples - 1).sum())
        places = ", ".join(f"{along[n] + usual:g}" for n in wide[:3])
        return f"slices are missing: {missing}, near {places} mm; they lie {usual:g} mm apart"
    return (
        f"the slices are unevenly spaced: {gaps.min():g} to {gaps.max():g} mm, near "
        f"{along[np.abs(gaps - usual).argmax()]:g} mm; slices are missing, or two series are mixed"
    )


def _shift_problem(in_plane: np.ndarray, along: np.ndarray, spacing: tuple[float, ...]) -> str:
    """Slices must lie on a straight line: the table must not have moved sideways."""
    fraction = (along - along[0]) / max(along[-1] - along[0], 1e-6)
    straight = in_plane[0] + fraction[:, None] * (in_plane[-1] - in_plane[0])
    off = np.abs(in_plane - straight).max()
    if off > max(spacing):
        return f"the slices are shifted against each other: by up to {off:.1f} mm in their plane"
    return ""
