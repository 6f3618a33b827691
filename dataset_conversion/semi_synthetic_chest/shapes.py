"""The random choices of a study: how the chest is shaped, and what part of it is seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """The change of shape of one subject, and what its findings do to it.

    scale: size per axis. angles: rotation in degrees about z, y, x. wall: thickness of the chest
    wall relative to the source's. heart: size of the heart relative to an ordinary one.
    diaphragm_up: mm by which (right, left) diaphragm is lifted. shift: mm by which the mediastinum
    moves to the patient's left. elastic: (3, 5, 5, 5) mm at control points over the chest.
    """

    scale: tuple[float, float, float]
    angles: tuple[float, float, float]
    wall: float
    heart: float
    elastic: NDArray[np.float64] = field(repr=False)
    diaphragm_up: tuple[float, float] = (0.0, 0.0)
    shift: float = 0.0


@dataclass(frozen=True)
class View:
    """Field of view: margins in mm around the body (y, x), and below and above the lungs."""

    spacing: tuple[float, float, float]
    margin_y: tuple[float, float]
    margin_x: tuple[float, float]
    below: float
    above: float


def draw_shape(rng: np.random.Generator) -> Shape:
    """An ordinary subject; findings change it further with ``dataclasses.replace``."""
    size = float(np.exp(rng.normal(0, 0.06)))
    scale = size * np.exp(rng.normal(0, 0.045, 3))
    return Shape(
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        angles=(float(rng.normal(0, 3)), float(rng.normal(0, 2)), float(rng.normal(0, 3))),
        wall=float(np.exp(rng.normal(0, 0.25))),
        heart=float(rng.uniform(0.9, 1.04)),
        elastic=rng.normal(0, 5.0, (3, 5, 5, 5)),
        shift=float(rng.normal(0, 2.5)),
    )


def draw_view(rng: np.random.Generator, spacing_mm: float) -> View:
    """A field of view; most hold the whole chest, some cut the skin or the upper abdomen."""
    spacing = spacing_mm * np.array([rng.uniform(0.92, 1.1), *[rng.uniform(0.92, 1.06)] * 2])
    side = rng.uniform(-14, 10, 4)
    return View(
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        margin_y=(float(side[0]), float(side[1])),
        margin_x=(float(side[2]), float(side[3])),
        below=float(rng.uniform(6, 45)),
        above=float(rng.uniform(6, 35)),
    )
