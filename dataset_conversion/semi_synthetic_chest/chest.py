"""A chest for a new study: the warped scan with its anatomy, and how findings are drawn into it.

Arrays are (Z, Y, X); z grows to the head, y to the back, x to the patient's left; mm throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colipri.dataset_conversion.semi_synthetic_chest.deformation import (
    Shape,
    View,
    source_coordinates,
)
from colipri.dataset_conversion.semi_synthetic_chest.interpolation import (
    EVERYTHING,
    Box,
    index_of,
    only,
    sample,
    upsample,
)
from colipri.dataset_conversion.semi_synthetic_chest.people import Blend, place_in
from colipri.dataset_conversion.semi_synthetic_chest.sources import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Array,
    Source,
    load_source,
)

_TISSUE_HU = -300.0  # above: not air, not lung
Details = dict[str, Any]  # of one finding: its side, size, place, ...
SIDES = ("right", "left")
LOBES = {
    "right": ("right upper lobe", "right middle lobe", "right lower lobe"),
    "left": ("left upper lobe", "left lower lobe"),
}


@dataclass
class Chest:
    """A chest that findings are drawn into.

    hu: Hounsfield units. lung: per side the fraction of each voxel that is lung (0..1).
    wall_mm, pleura_mm: distances as in Source, in source millimetres. labels: the finding that was
    drawn last at each voxel (0: none). occupied: fraction of each voxel that a finding has taken,
    so that the next one can choose a place where it will be seen.
    """

    source: Source
    hu: Array
    lung: dict[str, Array]
    wall_mm: Array
    pleura_mm: Array
    spacing: tuple[float, float, float]
    coarse: NDArray[np.float64]
    rng: np.random.Generator
    labels: NDArray[np.uint8] = field(init=False)
    occupied: Array = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.hu.shape, np.uint8)
        self.occupied = np.zeros(self.hu.shape, np.float32)
        self.axes_mm = [
            (np.arange(n, dtype=np.float32) * s).reshape([-1 if a == b else 1 for b in range(3)])
            for a, (n, s) in enumerate(zip(self.hu.shape, self.spacing, strict=True))
        ]
        self.boxes = {side: self._box(side) for side in SIDES}
        self.lung_hu = float(np.median(self.hu[self.lung["right"] + self.lung["left"] > 0.95]))

    def _box(self, side: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mask = self.lung[side] > 0.5
        index = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
        low = np.array([i[0] for i in index]) * self.spacing
        high = np.array([i[-1] for i in index]) * self.spacing
        return low, high

    def height(self, side: str) -> Array:
        """0 at the lowest point of the lung, 1 at its apex; (Z, 1, 1)."""
        low, high = self.boxes[side]
        height = (self.axes_mm[0] - low[0]) / (high[0] - low[0])
        return np.asarray(height, np.float32)

    def backness(self, side: str) -> Array:
        """0 at the front of the lung, 1 at its back; (1, Y, 1)."""
        low, high = self.boxes[side]
        backness = (self.axes_mm[1] - low[1]) / (high[1] - low[1])
        return np.asarray(backness, np.float32)

    def position_of(self, source_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where a point of the source (z, y, x mm) is in this chest (mm from the first voxel)."""
        counts = self.coarse.shape[1:]
        step = [
            (n - 1) * s / (c - 1)
            for n, s, c in zip(self.hu.shape, self.spacing, counts, strict=True)
        ]
        return np.asarray(index_of(self.coarse, source_mm) * step)

    def distance_to(self, centre: NDArray[np.float64], window_mm: float) -> tuple[Array, Box]:
        """Distance (mm) to ``centre`` within a window around it, and the window."""
        box = self.window(centre, window_mm)
        parts = [
            (axis[only(a, part)] - np.float32(c)) ** 2
            for a, (axis, part, c) in enumerate(zip(self.axes_mm, box, centre, strict=True))
        ]
        return np.sqrt(parts[0] + parts[1] + parts[2]), box

    def window(self, centre: NDArray[np.float64], radius_mm: float) -> Box:
        """Slices of all voxels within ``radius_mm`` of ``centre`` along each axis."""
        low = [max(0, int((c - radius_mm) / s)) for c, s in zip(centre, self.spacing, strict=True)]
        high = [int((c + radius_mm) / s) + 2 for c, s in zip(centre, self.spacing, strict=True)]
        return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))

    def noise(self, scale_mm: float, shape: tuple[int, int, int] | None = None) -> Array:
        """A smooth random field with mean 0 and standard deviation about 1."""
        shape = shape or (self.hu.shape[0], self.hu.shape[1], self.hu.shape[2])
        counts = [
            max(2, int(np.ceil(n * s / scale_mm)) + 1)
            for n, s in zip(shape, self.spacing, strict=True)
        ]
        coarse = self.rng.standard_normal(counts, dtype=np.float32)
        return upsample(coarse[None], shape)[0] * np.float32(1.7)  # interpolation loses variance

    def fill(self, part: Array, value: float | Array, box: Box | None = None) -> None:
        """Replace lung by ``value`` HU, as far as ``part`` says.

        At the border of the lung only the lung's share of a voxel is replaced, as in a real scan:
        otherwise a dark rim would separate the finding from the chest wall.

        Args:
            part: 0..1, fraction of the lung in each voxel of ``box``.
            value: HU, one or per voxel.
            box: window of the volume; None for all of it.
        """
        box = box or EVERYTHING
        share = (self.lung["right"][box] + self.lung["left"][box]) * part
        self.replace(share, value, box)

    def replace(self, share: Array, value: float | Array, box: Box | None = None) -> None:
        """Replace a share of each voxel, of lung or not, by ``value`` HU.

        Args:
            share: 0..1, fraction of each voxel of ``box``.
            value: HU, one or per voxel.
            box: window of the volume; None for all of it.
        """
        box = box or EVERYTHING
        hu = self.hu[box]
        lung = self.lung["right"][box] + self.lung["left"][box]
        old = np.where(lung > 0.9, hu, np.minimum(hu, self.lung_hu))
        old = np.where(lung < 0.05, hu, old)
        new = hu + share * (value - old)
        ceiling = np.maximum(np.maximum(value, hu), 70)
        self.hu[box] = np.minimum(new, ceiling)
        self.occupied[box] = np.maximum(self.occupied[box], share)

    def mark(self, mask: NDArray[np.bool_], label: int, box: Box | None = None) -> None:
        """Write a label where ``mask`` is true.

        Args:
            mask: bool, per voxel of ``box``.
            label: number in the label map.
            box: window of the volume; None for all of it.
        """
        self.labels[box or EVERYTHING][mask] = label

    def aerated_point(
        self, side: str, depth_mm: float, where: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Draw a random point (z, y, x mm) of free lung at least ``depth_mm`` from its border.

        The demand for depth is relaxed until a point exists; ``where`` narrows the choice if it can
        be met at all.

        Args:
            side: "left" or "right".
            depth_mm: smallest distance from the lung's border, mm.
            where: bool, per voxel; narrows the choice.
        """
        free = (self.lung[side] > 0.9) & (self.occupied < 0.2)
        if where is not None and (free & where).any():
            free = free & where
        for factor in (1.0, 0.6, 0.3, 0.0):
            index = np.flatnonzero(free & (self.pleura_mm >= depth_mm * factor))
            if index.size:
                chosen = int(index[self.rng.integers(index.size)])
                place = np.unravel_index(chosen, self.hu.shape)
                return np.asarray(np.array(place) * self.spacing, np.float64)
        low, high = self.boxes[side]
        middle: NDArray[np.float64] = (low + high) / 2
        return middle


def lobe_at(chest: Chest, side: str, position: NDArray[np.float64]) -> str:
    """Return the lobe that holds a position, by the usual course of the fissures.

    Args:
        chest: with its lungs.
        side: "left" or "right".
        position: z, y, x in mm.
    """
    low, high = chest.boxes[side]
    height, back = (position[:2] - low[:2]) / (high[:2] - low[:2])
    if height < _oblique_fissure(back):
        return f"{side} lower lobe"
    if side == "right" and height < 0.45 and back < 0.62:
        return "right middle lobe"
    return f"{side} upper lobe"


def lobe_mask(chest: Chest, lobe: str) -> NDArray[np.bool_]:
    """Where the lobe would be in a box-shaped lung; multiply with the lung's mask. (Z, Y, 1)"""
    side = lobe.split()[0]
    height, back = chest.height(side), chest.backness(side)
    lower = height < _oblique_fissure(back)
    if lobe.endswith("lower lobe"):
        return np.asarray(lower)
    middle = (side == "right") & (height < 0.45) & (back < 0.62) & ~lower
    return np.asarray(middle if lobe.endswith("middle lobe") else ~lower & ~middle)


def _oblique_fissure(backness: Array | float) -> Array | float:
    """Height of the oblique fissure: from the diaphragm in front to T4 at the back."""
    return 0.02 + 0.7 * backness


def make_chest(
    source: Source,
    shape: Shape,
    view: View,
    rng: np.random.Generator,
    blend: Blend | None = None,
) -> Chest:
    """Sample a source scan and its anatomy on the grid of a new study.

    Args:
        source: scan and anatomy.
        shape: of the new chest.
        view: spacing and field of view of the new study.
        rng: of what is drawn.
        blend: the second person, of whom shape and intensities are partly taken.
    """
    coarse, size = source_coordinates(source, shape, view, blend)
    sampled = sample(_volumes(source), _grid(coarse, source, size))
    hu = sampled[0]
    if blend is not None and blend.intensity > 0:
        second = load_source(blend.second)
        grid = _grid(place_in(coarse, source, second), second, size)
        there = sample(_volumes(second)[:1], grid)[0]
        # lung with lung and body with body: what lies elsewhere in the other person is left out
        alike = (sampled[1] + sampled[2] > 0.5) | ((hu > _TISSUE_HU) & (there > _TISSUE_HU))
        hu = hu + np.float32(blend.intensity) * np.where(alike, there - hu, 0)
    return Chest(
        source=source,
        hu=hu,
        lung={"right": sampled[1], "left": sampled[2]},
        wall_mm=sampled[3],
        pleura_mm=sampled[4],
        spacing=view.spacing,
        coarse=coarse,
        rng=rng,
    )


def _grid(coarse: NDArray[np.float64], source: Source, size: tuple[int, int, int]) -> Array:
    """Places of the fine grid, -1 to 1 within the scan (x, y, z), as torch samples."""
    extent = (np.array(source.hu.shape) - 1) * source.spacing
    relative = (coarse - source.origin.reshape(3, 1, 1, 1)) / extent.reshape(3, 1, 1, 1) * 2 - 1
    return upsample(relative[::-1].astype(np.float32), size)


_VOLUMES: dict[str, Array] = {}


def _volumes(source: Source) -> Array:
    """(5, Z, Y, X): what is sampled together; cached per process, as every study uses it."""
    if source.name not in _VOLUMES:
        _VOLUMES[source.name] = np.stack(
            [
                source.hu,
                (source.anatomy == RIGHT_LUNG).astype(np.float32),
                (source.anatomy == LEFT_LUNG).astype(np.float32),
                source.wall_mm,
                source.pleura_mm,
            ]
        )
    return _VOLUMES[source.name]
