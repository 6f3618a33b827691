"""Findings of the lung itself: consolidation, ground glass, nodules, emphysema."""

from __future__ import annotations

from typing import Any

import numpy as np

from colipri.dataset_conversion.semi_synthetic_chest.brushes import (
    blob,
    random_side,
    random_sides,
    side_word,
    size_word,
    soft_step,
)
from colipri.dataset_conversion.semi_synthetic_chest.chest import Chest
from colipri.dataset_conversion.semi_synthetic_chest.lobes import LOBES, lobe_at, lobe_mask
from colipri.dataset_conversion.semi_synthetic_chest.sources import Array

Details = dict[str, Any]

_LOBE_NAMES = [lobe for lobes in LOBES.values() for lobe in lobes]


def draw_consolidation(rng: np.random.Generator) -> Details:
    """Lobe and radius (mm)."""
    lobe = _LOBE_NAMES[int(rng.integers(len(_LOBE_NAMES)))]
    radius = float(rng.uniform(30, 52))
    return {"lobe": lobe, "radius_mm": radius, "size": size_word(radius, (37, 45))}


def insert_consolidation(chest: Chest, details: Details, label: int) -> Details:
    """A ragged patch of soft tissue density with air bronchograms, within one lobe."""
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
    """Patches that veil the lung but leave its vessels visible."""
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
    """Round lesions of soft tissue density; the report names the place of the largest."""
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
    """Holes of air density among thinned lung, most in the upper lobes."""
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
