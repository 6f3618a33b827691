"""Findings of the lung: consolidation, ground glass, nodules, emphysema and atelectasis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.chest import (
    LOBES,
    Chest,
    Details,
    lobe_at,
    lobe_mask,
)
from colipri.dataset_conversion.semi_synthetic_chest.deformation import Shape
from colipri.dataset_conversion.semi_synthetic_chest.shape_drawing import (
    blob,
    edge_width,
    random_side,
    random_sides,
    side_word,
    size_word,
    soft_step,
)
from colipri.dataset_conversion.semi_synthetic_chest.sources import Array

_LOBE_NAMES = [lobe for lobes in LOBES.values() for lobe in lobes]


def draw_consolidation(rng: np.random.Generator) -> Details:
    """Lobe and radius (mm)."""
    lobe = _LOBE_NAMES[int(rng.integers(len(_LOBE_NAMES)))]
    radius = float(rng.uniform(30, 52))
    return {"lobe": lobe, "radius_mm": radius, "size": size_word(radius, (37, 45))}


def insert_consolidation(chest: Chest, details: Details, label: int) -> Details:
    """Insert a ragged patch of soft tissue density with air bronchograms within one lobe.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    lobe = details["lobe"]
    side = lobe.split()[0]
    within = np.broadcast_to(lobe_mask(chest, lobe), chest.hu.shape)
    centre = chest.aerated_point(side, details["radius_mm"] * 0.4, within)
    share, box = blob(chest, centre, details["radius_mm"], 6.0)
    share = share * chest.lung[side][box] * (0.15 + 0.85 * within[box])
    density = 35 + 12 * chest.noise(9.0, _size(share))
    bronchi = chest.noise(7.0, _size(share)) > 1.35
    density = np.where(bronchi, -550, density).astype(np.float32)
    chest.fill(share, density, box)
    chest.mark(share > 0.5, label, box)
    return details


def draw_opacity(rng: np.random.Generator) -> Details:
    """Ground glass: sides, number of patches, their radius (mm)."""
    sides = random_sides(rng, both=0.5)
    return {
        "sides": sides,
        "side": side_word(sides),
        "count": int(rng.integers(3, 6)),
        "radius_mm": float(rng.uniform(26, 42)),
        "extent": ["patchy", "multifocal", "hazy"][int(rng.integers(3))],
    }


def insert_opacity(chest: Chest, details: Details, label: int) -> Details:
    """Insert patches that veil the lung but leave its vessels visible.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    for side in details["sides"]:
        for _ in range(details["count"]):
            centre = chest.aerated_point(side, 8.0)
            radius = details["radius_mm"] * float(chest.rng.uniform(0.75, 1.25))
            share, box = blob(chest, centre, radius, 5.0)
            veil = share * chest.lung[side][box]
            strength = float(chest.rng.uniform(0.36, 0.54))
            texture = np.clip(1 + 0.25 * chest.noise(8.0, _size(veil)), 0.4, 1.6)
            chest.fill(veil * strength * texture * (chest.hu[box] < -450), 20.0, box)
            chest.occupied[box] = np.maximum(chest.occupied[box], veil)
            chest.mark(veil > 0.5, label, box)
    return details


def draw_nodules(rng: np.random.Generator) -> Details:
    """Number and diameters (mm)."""
    count = 1 if rng.random() < 0.3 else int(rng.integers(2, 7))
    diameters = [float(d) for d in np.sort(rng.uniform(18, 34, count))[::-1]]
    return {"diameters_mm": diameters, "count": count}


def insert_nodules(chest: Chest, details: Details, label: int) -> Details:
    """Insert round lesions of soft tissue density; the report names the place of the largest.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    places = []
    for diameter in details["diameters_mm"]:
        side = random_side(chest.rng)
        centre = chest.aerated_point(side, diameter / 2 + 2)
        share, box = blob(chest, centre, diameter / 2, diameter * 0.04)
        share = share * chest.lung[side][box]
        chest.fill(share, float(chest.rng.uniform(20, 70)), box)
        chest.mark(share > 0.5, label, box)
        places.append(lobe_at(chest, side, centre))
    return {**details, "lobe": places[0], "diameter": round(details["diameters_mm"][0])}


def draw_emphysema(rng: np.random.Generator) -> Details:
    """Extent (share of the upper lung) and kind."""
    extent = float(rng.uniform(0.4, 0.8))
    return {
        "extent": extent,
        "size": "mild" if extent < 0.53 else "moderate" if extent < 0.67 else "severe",
        "kind": ["centrilobular", "paraseptal"][int(rng.random() < 0.3)],
    }


def insert_emphysema(chest: Chest, details: Details, label: int) -> Details:
    """Insert holes of air density among thinned lung, most in the upper lobes.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    field = chest.noise(11.0) + 0.6 * chest.noise(24.0)
    for side in ("right", "left"):
        lung = chest.lung[side]
        upper = np.clip(0.45 + 0.75 * chest.height(side), 0, 1)
        if details["kind"] == "paraseptal":
            near = np.clip(1.3 - chest.pleura_mm / 22, 0.2, 1.2)
            upper = upper * near
        cut = np.quantile(field[lung > 0.5], 1 - details["extent"])
        holes = soft_step((field - cut) * 4.0, 3.0) * upper * (chest.hu < -600)
        chest.fill(holes * 0.95, -1000.0)
        lung_now = (lung > 0.5) & (chest.hu < -600)
        chest.hu[lung_now] -= 25 * details["extent"]
        chest.mark((holes > 0.5) & (lung > 0.5), label)
    return details


def _size(array: Array) -> tuple[int, int, int]:
    return array.shape[0], array.shape[1], array.shape[2]


def draw_atelectasis(rng: np.random.Generator) -> Details:
    """Collapse of the base of a lower lobe: side, thickness (mm), lift of the diaphragm (mm)."""
    thickness = float(rng.uniform(22, 44))
    return {
        "side": random_side(rng),
        "thickness_mm": thickness,
        "lift_mm": thickness * 0.7,
        "size": size_word(thickness, (29, 37)),
    }


def deform_atelectasis(shape: Shape, details: Details) -> Shape:
    """Volume loss: the diaphragm rises and the mediastinum moves to the side of the collapse."""
    right, left = shape.diaphragm_up
    if details["side"] == "right":
        lifted, shift = (right + details["lift_mm"], left), shape.shift - 5
    else:
        lifted, shift = (right, left + details["lift_mm"]), shape.shift + 5
    return replace(shape, diaphragm_up=lifted, shift=shift)


def insert_atelectasis(chest: Chest, details: Details, label: int) -> Details:
    """Insert a wedge of dense lung beside the spine, and bands of it above the diaphragm.

    Args:
        chest: changed in place.
        details: drawn for this finding: its side, size, place.
        label: number of the finding in the label map.
    """
    side = details["side"]
    lung = chest.lung[side]
    low, high = chest.boxes[side]
    medial = high[2] if side == "right" else low[2]  # x grows to the patient's left
    across = np.abs(chest.axes_mm[2] - np.float32(medial)) / np.float32(high[2] - low[2])
    # The collapsed lobe lies as a triangle against spine and diaphragm.
    depth = details["thickness_mm"] * (1.25 - 1.6 * across)
    depth = depth * np.clip((0.5 - chest.height(side)) / 0.3, 0, 1)
    from_back = (1 - chest.backness(side)) * np.float32(high[1] - low[1])
    ragged = 2.5 * chest.noise(18.0)
    wedge = soft_step(2.2 * depth - from_back + ragged, 1.5 * edge_width(chest)) * (depth > 1)
    bands = _bands(chest, side)
    share = np.maximum(wedge, bands) * (lung > 0.02)
    chest.fill(share, float(chest.rng.uniform(40, 65)))
    chest.mark((share > 0.5) & (lung > 0.5), label)
    return details


def _bands(chest: Chest, side: str) -> Array:
    """Two thin round plates above the diaphragm, slightly tilted."""
    low, high = chest.boxes[side]
    total = np.zeros(chest.hu.shape, np.float32)
    for _ in range(2):
        level = low[0] + (high[0] - low[0]) * chest.rng.uniform(0.12, 0.32)
        tilt = chest.rng.normal(0, 0.35, 2)
        plane = (
            chest.axes_mm[0]
            - np.float32(level)
            + np.float32(tilt[0]) * (chest.axes_mm[1] - np.float32((low[1] + high[1]) / 2))
            + np.float32(tilt[1]) * (chest.axes_mm[2] - np.float32((low[2] + high[2]) / 2))
        )
        # A plate ends in a soft, round border: it is a sheet of collapsed lung, not a slab.
        place = chest.rng.uniform(0.35, 0.65, 2)
        across = (chest.axes_mm[2] - np.float32(low[2])) / np.float32(high[2] - low[2])
        radius = np.hypot(chest.backness(side) - place[0], across - place[1])
        inside = np.clip((0.34 - radius) / 0.1, 0, 1)
        total = np.maximum(total, soft_step(2.6 - np.abs(plane), edge_width(chest)) * inside)
    return np.asarray(total * (chest.pleura_mm < 45))
