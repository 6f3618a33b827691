"""From readings of single radiologists to findings of a scan: agreement, medians, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from colipri.dataset_conversion.lidc.readings import RATINGS, Reading

NODULE = "Lung nodule"
# Finding -> (rating, lowest, highest median), on the scales of the data set's documentation.
_ATTRIBUTES = {
    "Spiculated nodule": ("spiculation", 3.5, 5),  # 1 none .. 5 marked
    "Calcified nodule": ("calcification", 1, 5),  # 6 absent
    "Ground-glass nodule": ("texture", 1, 2),  # 1 ground glass .. 5 solid
    "Part-solid nodule": ("texture", 2.5, 4),
    "Nodule suspicious of malignancy": ("malignancy", 3.5, 5),  # 1 highly unlikely .. 5 highly
}
FINDINGS = (NODULE, *_ATTRIBUTES)
_MOST_READERS = 4
_NEAREST_MM = 3.0  # centres this near mean one nodule whatever its size


def nodules_of(readings: Sequence[Reading], spacing: tuple[float, float]) -> list[dict[str, Any]]:
    """Readings of one nodule joined: centres nearer than its radius (or 3 mm).

    Args:
        spacing: mm between rows and between columns.

    Returns:
        Per nodule: readers, center (column, row, z in mm), diameter_mm, and the median and values
        of each rating; the one that most readers saw first.
    """
    groups: list[list[Reading]] = []
    for reading in readings:
        near = [g for g in groups if any(_same(reading, other, spacing) for other in g)]
        joined = [reading, *(one for group in near for one in group)]
        groups = [g for g in groups if g not in near] + [joined]
    nodules = [_nodule(group, spacing) for group in groups]
    return sorted(nodules, key=lambda n: (-n["readers"], -n["diameter_mm"]))


def labels_of(nodules: Sequence[dict[str, Any]], min_readers: int) -> dict[str, int | None]:
    """Findings of a scan: 1 if ``min_readers`` agree on a nodule, 0 if nobody saw one.

    Where only fewer saw one they are unknown. Attributes are medians over the readers of the agreed
    nodules; they are 0 without an agreed nodule.
    """
    agreed = [nodule for nodule in nodules if nodule["readers"] >= min_readers]
    if not agreed:
        value = None if nodules else 0
        return dict.fromkeys(FINDINGS, value)
    result: dict[str, int | None] = {NODULE: 1}
    for finding, (rating, low, high) in _ATTRIBUTES.items():
        result[finding] = int(any(low <= n["ratings"][rating]["median"] <= high for n in agreed))
    return result


def sentences_of(nodules: Sequence[dict[str, Any]], min_readers: int) -> str:
    """Findings as sentences of a fixed form; empty where the readers disagree on all."""
    agreed = [nodule for nodule in nodules if nodule["readers"] >= min_readers]
    if not nodules:
        return "There is no lung nodule of 3 mm or more."
    return " ".join(_sentence(nodule) for nodule in agreed)


def _sentence(nodule: dict[str, Any]) -> str:
    ratings = {name: nodule["ratings"][name]["median"] for name in RATINGS}
    texture = ratings["texture"]
    kind = "ground-glass" if texture <= 2 else "part-solid" if texture <= 4 else "solid"
    margin = "spiculated" if ratings["spiculation"] >= 3.5 else "smooth"
    calcified = "calcified, " if ratings["calcification"] <= 5 else ""
    malignancy = ratings["malignancy"]
    judged = (
        "suspicious of malignancy"
        if malignancy >= 3.5
        else "probably benign"
        if malignancy <= 2.5
        else "indeterminate"
    )
    return (
        f"There is a {margin}, {calcified}{kind} lung nodule of {nodule['diameter_mm']:.0f} mm, "
        f"{judged}."
    )


def _nodule(group: Sequence[Reading], spacing: tuple[float, float]) -> dict[str, Any]:
    return {
        "readers": _readers(group),
        "center": {
            "column": round(median(r.column for r in group), 1),
            "row": round(median(r.row for r in group), 1),
            "z_mm": round(median(r.z for r in group), 2),
        },
        "diameter_mm": round(median(_diameter(r, spacing) for r in group), 1),
        "ratings": {
            name: {
                "median": median(r.ratings[name] for r in group),
                "values": sorted(r.ratings[name] for r in group),
            }
            for name in RATINGS
        },
    }


def _readers(group: Sequence[Reading]) -> int:
    """Different readers; a table that does not name them has one reading per reader."""
    names = {reading.reader for reading in group}
    return min(len(group), _MOST_READERS) if names == {""} else len(names)


def _diameter(reading: Reading, spacing: tuple[float, float]) -> float:
    return reading.diameter * (spacing[1] if reading.in_pixels else 1.0)


def _same(a: Reading, b: Reading, spacing: tuple[float, float]) -> bool:
    offsets = ((a.column - b.column) * spacing[1], (a.row - b.row) * spacing[0], a.z - b.z)
    radius = max(_diameter(a, spacing), _diameter(b, spacing)) / 2
    return sum(offset**2 for offset in offsets) ** 0.5 <= max(radius, _NEAREST_MM)
