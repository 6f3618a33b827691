"""Slices that a series has lost: files that cannot be read, and slices with an odd tag.

A scan that is shorter than it was is the worst of all defects, because nothing shows it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from colipri.imageio.dicom.files import SkippedFile, place_of
from colipri.imageio.dicom.geometry import Stack, axes
from colipri.imageio.dicom.headers import Instance

_ODD_SHARE = 0.1  # of the slices; more with another tag are a scan of their own


def damaged_slices(
    instances: Iterable[Instance], skipped: Iterable[SkippedFile]
) -> dict[str, list[SkippedFile]]:
    """Series UID -> files that are probably slices of it, but cannot be read.

    A file counts if it was DICOM, is named like DICOM files, or is named like the slices in
    its folder apart from the digits. It belongs to the series of its neighbours by name, or to all
    series of the folder if names do not group them.

    Args:
        instances: all that were read.
        skipped: files that are not DICOM.
    """
    by_folder: dict[str, dict[str, str]] = defaultdict(dict)  # folder -> file -> series
    skipped = list(skipped)
    unreadable = {item.place for item in skipped}
    for instance in instances:
        place = place_of(instance.file, instance.member)
        if place not in unreadable:
            by_folder[place[0]][place[1]] = instance.series
    result: dict[str, list[SkippedFile]] = defaultdict(list)
    patterns: dict[str, set[str]] = {}
    for item in skipped:
        if item.place is None or item.place[0] not in by_folder:
            continue
        folder, name = item.place
        if folder not in patterns:
            patterns[folder] = {_pattern(other) for other in by_folder[folder]}
        if item.defect or _looks_like_slice(name, patterns[folder]):
            for series in _series_around(name, by_folder[folder]):
                result[series].append(item)
    return dict(result)


def torn_slice(instance: Instance) -> SkippedFile:
    """A cut file as one that could not be read at all."""
    place = place_of(instance.file, instance.member)
    return SkippedFile(instance.where, instance.problem, defect=True, place=place)


def odd_slices(stack: Stack, others: Iterable[Instance]) -> list[Instance]:
    """Instances of a series that were left out of its stack because of one odd tag.

    They have the size, spacing and orientation of the stack, or two of these three, and lie in it
    or next to it. A localiser or a second scan does not.

    Args:
        stack: the largest one of the series.
        others: the other instances of the series.
    """
    candidates = [other for other in others if _belongs(stack, other)]
    few = len(candidates) <= max(1, _ODD_SHARE * len(stack.instances))
    return candidates if few else []


def continues(stack: Stack, other: Instance) -> bool:
    """True if a slice is exactly where the next one of the stack would be, in the same folder."""
    first = stack.instances[0]
    folder = place_of(first.file, first.member)[0]
    if place_of(other.file, other.member)[0] != folder or not other.position:
        return False
    if not _belongs(stack, other) or not other.orientation:
        return False
    low, high = stack.extent
    place = float(np.array(other.position) @ axes(first)[2])
    return any(abs(place - end) < 0.1 * stack.step for end in (low - stack.step, high + stack.step))


def _belongs(stack: Stack, other: Instance) -> bool:
    first = stack.instances[0]
    alike = [
        (other.rows, other.columns) == (first.rows, first.columns),
        len(other.spacing) == 2 and np.allclose(other.spacing, first.spacing, rtol=1e-3),
        len(other.orientation) == 6
        and np.allclose(other.orientation, first.orientation, rtol=0, atol=1e-3),
    ]
    if sum(alike) < 2:
        return False
    if not other.position:
        return True
    low, high = stack.extent
    place = float(np.array(other.position) @ axes(first)[2])
    return low - 1.5 * stack.step <= place <= high + 1.5 * stack.step


def _looks_like_slice(name: str, patterns: set[str]) -> bool:
    if name.startswith("._") or name.upper() == "DICOMDIR":
        return False
    return _pattern(name) in patterns


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _series_around(name: str, names: Mapping[str, str]) -> set[str]:
    ordered = sorted(names)
    series = [names[other] for other in ordered]
    changes = sum(a != b for a, b in pairwise(series))
    if changes + 1 > len(set(series)):  # names do not group the series
        return set(series)
    place = sum(other < name for other in ordered)
    return {series[n] for n in (place - 1, place) if 0 <= n < len(series)}


def missing_from(
    stack: Stack, images: Sequence[Instance], others: Sequence[Instance],
    damaged: Sequence[SkippedFile],
) -> tuple[str, str]:  # fmt: skip
    """What a stack has lost, and the first file concerned; "" and "" if it is whole.

    Args:
        stack: slices that make a volume.
        images: all slices of its series.
        others: instances of its series that are no slices of a volume.
        damaged: files that cannot be read and are probably slices of it.
    """
    if damaged:
        reason = f"files among its slices cannot be read: {len(damaged)}, {damaged[0].reason}"
        return reason, damaged[0].what
    cut = [o for o in others if not (o.position and o.orientation and o.spacing and o.rows)]
    broken = [instance for instance in (*stack.instances, *cut) if instance.problem]
    if broken:
        more = f" (and of {len(broken) - 1} more slices)" if len(broken) > 1 else ""
        return broken[0].problem + more, broken[0].where
    inside = {(instance.file, instance.member) for instance in stack.instances}
    places = {instance.position for instance in stack.instances}
    left = [other for other in (*images, *others) if (other.file, other.member) not in inside]
    odd = [other for other in odd_slices(stack, left) if other.position not in places]
    if odd:
        why = odd[0].problem or "its tags are not those of the others"
        return f"slices do not fit the others: {len(odd)}, {why}", odd[0].where
    return "", ""
