"""People between the training people: the shape of one chest on the way to that of another.

Three people are few, and a model that has seen few chests knows them by heart. A registration says
where each place of one chest is in another (semi_synthetic_chest/make_maps.py). A study takes the
scan of one person, moves every place a part of the way to the shape of a second one, and blends in
a part of the second one's intensities. People of different splits are never blended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    LEFT_LUNG,
    RIGHT_LUNG,
    SCANS_FOLDER,
    Source,
)

MAPS_FOLDER = SCANS_FOLDER.with_name("maps")
MOST_INTENSITY = 0.5  # of the second person: above, the first one's lungs would not fit

Point = NDArray[np.float64]


@dataclass(frozen=True)
class Blend:
    """The second person of a study.

    Attributes:
        second: name of the scan.
        shape: share of the way to the second one's shape, 0 to 1.
        intensity: share of the second one's Hounsfield units, 0 to MOST_INTENSITY.
    """

    second: str
    shape: float
    intensity: float


def draw_blend(rng: np.random.Generator, others: Sequence[Source]) -> Blend | None:
    """Draw a second person; None if the split has only one.

    Nothing but the shape is taken from a person who may really have one of the findings.

    Args:
        rng: of the study.
        others: the other people of the split.
    """
    if not others:
        return None
    second = others[int(rng.integers(len(others)))]
    shape, intensity = float(rng.uniform(0, 1)), float(rng.uniform(0, MOST_INTENSITY))
    return Blend(second.name, shape, 0.0 if second.unknown else intensity)


def towards(points: Point, first: Source, second: Source, share: float) -> Point:
    """Where in ``first`` the places of a person between the two are: (3, ...) mm (z, y, x).

    Args:
        points: (3, n0, n1, n2) mm, in a chest of the size of ``first``.
        first, second: the two people.
        share: of the way to the shape of ``second``; 0 leaves the points where they are.
    """
    scale, shift = (v.reshape(3, 1, 1, 1) for v in box_alignment(first, second))
    there = place_in(points * scale + shift, second, first)
    return points + share * (there - points)


def place_in(points: Point, first: Source, second: Source) -> Point:
    """Return where places of ``first`` are in ``second``, (3, ...) mm (z, y, x).

    Args:
        points: (3, ...) mm in ``first``.
        first, second: the two people.
    """
    values, origin, spacing = _map(first.name, second.name)
    index = (points - origin.reshape(3, 1, 1, 1)) / spacing.reshape(3, 1, 1, 1)
    # beyond the map the movement of its border goes on
    inside = np.stack([np.clip(i, 0, n - 1) for i, n in zip(index, values.shape[1:], strict=True)])
    there = np.stack([map_coordinates(v, inside, order=1, mode="nearest") for v in values])
    return there + (index - inside) * spacing.reshape(3, 1, 1, 1)


def box_alignment(first: Source, second: Source) -> tuple[Point, Point]:
    """Scale and shift (z, y, x; mm) that lay the box of the first one's lungs on the second's."""
    centre, half = lung_box(first)
    centre_there, half_there = lung_box(second)
    scale = half_there / half
    return scale, centre_there - scale * centre


def lung_box(source: Source) -> tuple[Point, Point]:
    """Centre and half extent (z, y, x; mm) of the box around both lungs."""
    lungs = (source.anatomy == LEFT_LUNG) | (source.anatomy == RIGHT_LUNG)
    index = [np.flatnonzero(lungs.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    low = np.array([i[0] for i in index]) * source.spacing + source.origin
    high = np.array([i[-1] for i in index]) * source.spacing + source.origin
    return (low + high) / 2, (high - low) / 2


@cache
def _map(first: str, second: str) -> tuple[NDArray[np.float64], Point, Point]:
    """Values (3, Z, Y, X) mm (z, y, x), origin and spacing of a stored map."""
    path: Path = MAPS_FOLDER / f"{first}_to_{second}.nii.gz"
    image = sitk.ReadImage(str(path))
    values = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)[::-1] / 10.0
    return values, np.asarray(image.GetOrigin()[::-1]), np.asarray(image.GetSpacing()[::-1])
