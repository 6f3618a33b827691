"""Findings of heart, aorta and oesophagus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest, Details
from colipri.dataset_conversion.semi_synthetic_chest.deformation import Shape
from colipri.dataset_conversion.semi_synthetic_chest.shape_drawing import (
    blob,
    edge_width,
    size_word,
    soft_step,
)

_AORTA_RADIUS_MM = 13.0


def draw_cardiomegaly(rng: np.random.Generator) -> Details:
    """Size of the heart relative to an ordinary one."""
    factor = float(rng.uniform(1.3, 1.55))
    size = "mildly" if factor < 1.37 else "moderately" if factor < 1.46 else "markedly"
    return {"factor": factor, "size": size}


def deform_cardiomegaly(shape: Shape, details: Details) -> Shape:
    """The heart grows; its surroundings make room."""
    return replace(shape, heart=shape.heart * details["factor"])


def insert_cardiomegaly(chest: Chest, details: Details, label: int) -> Details:
    """Mark the heart in the label map; its shape was changed before.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    centre = chest.position_of(chest.source.heart_centre)
    axes = chest.source.heart_axes * chest.source.heart_normal_scale * details["factor"]
    radius = sum(
        ((axis - np.float32(c)) / np.float32(a)) ** 2
        for axis, c, a in zip(chest.axes_mm, centre, axes, strict=True)
    )
    soft = (np.asarray(radius) < 1) & (chest.hu > -50) & (chest.hu < 300)
    lung = chest.lung["right"] + chest.lung["left"]
    chest.mark(soft & (lung < 0.2), label)
    return details


def draw_calcification(rng: np.random.Generator) -> Details:
    """Number of plaques in the wall of the aorta."""
    count = int(rng.integers(18, 42))
    return {
        "count": count,
        "size": "mild" if count < 25 else "moderate" if count < 33 else "severe",
    }


def insert_calcification(chest: Chest, details: Details, label: int) -> Details:
    """Insert bright plaques on a tube around the aorta's centre line.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    line = np.stack([chest.position_of(point) for point in chest.source.aorta])
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    # Plaques favour the arch and the descending part over the root.
    for share in np.asarray(chest.rng.beta(1.6, 1.2, details["count"])):
        where = share * along[-1]
        centre = np.array([np.interp(where, along, line[:, a]) for a in range(3)])
        ahead = np.array([np.interp(where + 8, along, line[:, a]) for a in range(3)])
        direction = (ahead - centre) / (np.linalg.norm(ahead - centre) + 1e-6)
        outward = np.cross(direction, chest.rng.standard_normal(3))
        outward /= np.linalg.norm(outward) + 1e-6
        centre = centre + outward * _AORTA_RADIUS_MM
        plaque, box = blob(chest, centre, float(chest.rng.uniform(4.0, 6.5)), 0.6)
        lung = chest.lung["right"][box] + chest.lung["left"][box]
        plaque = plaque * (lung < 0.4) * (chest.hu[box] > -150)
        chest.replace(plaque, float(chest.rng.uniform(700, 1300)), box)
        chest.mark(plaque > 0.4, label, box)
    return details


def draw_hernia(rng: np.random.Generator) -> Details:
    """Radius (mm) of the stomach that lies above the diaphragm."""
    radius = float(rng.uniform(27, 42))
    return {"radius_mm": radius, "size": size_word(radius, (32, 37))}


def insert_hernia(chest: Chest, details: Details, label: int) -> Details:
    """Insert a thick-walled pouch behind the heart, with fluid and an air bubble in front.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    radius = details["radius_mm"]
    hiatus = chest.position_of(chest.source.hiatus)
    centre = hiatus + np.array([radius * 0.75, -radius * 0.15, 0.0])
    distance, box = chest.distance_to(centre, radius + 8)
    width = edge_width(chest)
    # Not into the spine behind it, nor out of the chest.
    room = (chest.hu[box] < 150) | (distance < radius * 0.5)
    pouch = soft_step(radius - distance, width) * room
    lumen = soft_step(radius - 5.0 - distance, width) * room
    chest.replace(pouch, 45.0, box)
    level = centre[1] - radius * float(chest.rng.uniform(-0.25, 0.25))
    front = soft_step(np.float32(level) - chest.axes_mm[1][:, box[1]], width)
    fluid = float(chest.rng.uniform(5, 30))
    chest.replace(lumen * (1 - front), fluid, box)
    inside = chest.hu[box]
    chest.hu[box] = inside + lumen * front * (-940.0 - inside)
    chest.mark(pouch > 0.5, label, box)
    for side in ("right", "left"):
        chest.lung[side][box] *= 1 - pouch
    return details
