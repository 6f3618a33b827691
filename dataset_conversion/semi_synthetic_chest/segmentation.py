"""Body, lungs and chest cavity from Hounsfield units, by thresholds and connected components.

Arrays are (Z, Y, X) of an LPS image, spacing is (z, y, x) in mm. Used once, for the shipped scans.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEFT_LUNG = 1
RIGHT_LUNG = 2
BODY = 3  # everything else inside the skin

_AIR_HU = -450.0  # between lung (about -850) and soft tissue (about 0), on the lung's side
_TRACHEA_AREA_MM2 = 900.0  # a normal trachea is below 500 mm2; beyond this it has met a lung

Mask = NDArray[np.bool_]


def body_mask(hu: NDArray[np.floating], spacing: tuple[float, float, float]) -> Mask:
    """Everything inside the skin, slice by slice (the largest object, holes filled).

    The table is cut off by an opening of about 8 mm.
    """
    size = [max(1, round(8.0 / s)) for s in spacing[1:]]
    solid = hu > -300
    solid = ndimage.binary_opening(solid, np.ones((1, size[0], size[1]), bool))
    solid = _largest_components(solid, 1)
    return np.stack([ndimage.binary_fill_holes(s) for s in solid])


def lung_masks(hu: NDArray[np.floating], spacing: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Label map: LEFT_LUNG, RIGHT_LUNG (vessels included, airways not), BODY, 0 outside.

    Raises:
        ValueError: no two lungs were found.
    """
    body = body_mask(hu, spacing)
    air = (hu < _AIR_HU) & body
    air &= ~trachea_mask(air, spacing)
    air = ndimage.binary_opening(air, _ball(3.0, spacing))
    lungs = _two_lungs(air, spacing)
    labels = np.where(body, BODY, 0).astype(np.uint8)
    for value, lung in zip((RIGHT_LUNG, LEFT_LUNG), lungs, strict=True):
        labels[_close(lung, 9.0, spacing) & body] = value
    return labels


def trachea_mask(air: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Follow the airway downwards from the top slice until it meets a lung or splits off.

    In each slice the trachea is the air nearest to where it was in the slice above.
    """
    area = spacing[1] * spacing[2]
    trachea = np.zeros_like(air)
    middle = air.shape[2] / 2
    position: tuple[float, float] | None = None
    for z in range(air.shape[0] - 1, -1, -1):
        labels, count = ndimage.label(air[z])
        best: tuple[float, int, tuple[float, float]] | None = None
        for index in range(1, count + 1):
            size = float((labels == index).sum()) * area
            centre = ndimage.center_of_mass(labels == index)
            if not 40 < size < _TRACHEA_AREA_MM2:
                continue
            if position is None:
                distance = abs(centre[1] - middle) * spacing[2]
            else:
                distance = float(
                    np.hypot(
                        (centre[0] - position[0]) * spacing[1],
                        (centre[1] - position[1]) * spacing[2],
                    )
                )
            if distance < 25 and (best is None or distance < best[0]):
                best = (distance, index, (float(centre[0]), float(centre[1])))
        if best is not None:
            position = best[2]
            trachea[z] = labels == best[1]
        elif position is not None:
            break
    return ndimage.binary_dilation(trachea, _ball(4.0, spacing))


def chest_cavity(labels: NDArray[np.uint8]) -> Mask:
    """The space inside the rib cage: per axial slice the convex hull of both lungs.

    It holds lungs, mediastinum and the domes of the diaphragm; its border is the chest wall.
    """
    from skimage.morphology import convex_hull_image

    lungs = (labels == LEFT_LUNG) | (labels == RIGHT_LUNG)
    cavity = np.zeros_like(lungs)
    for z in np.flatnonzero(lungs.any((1, 2))):
        cavity[z] = convex_hull_image(lungs[z])
    return cavity


def _two_lungs(air: Mask, spacing: tuple[float, float, float]) -> tuple[Mask, Mask]:
    """(right, left): the two largest components; a joined pair is parted by a watershed."""
    for shrink in (0.0, 3.0, 5.0, 8.0, 11.0):
        core = ndimage.binary_erosion(air, _ball(shrink, spacing)) if shrink else air
        labels, count = ndimage.label(core)
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        first, second = np.argsort(sizes)[::-1][:2] + 1
        if sizes[second - 1] < 0.25 * sizes[first - 1]:
            continue
        nearest = ndimage.distance_transform_edt(
            ~np.isin(labels, (first, second)),
            sampling=spacing,
            return_distances=False,
            return_indices=True,
        )
        owner = labels[tuple(nearest)]
        both = _largest_components(air, 2) if shrink == 0 else air
        masks = [both & (owner == index) for index in (first, second)]
        masks = [_largest_components(mask, 1) for mask in masks]
        masks.sort(key=lambda mask: float(np.mean(np.nonzero(mask)[2])))
        return masks[0], masks[1]  # smaller x is the patient's right
    raise ValueError("no two lungs found")


def _largest_components(mask: Mask, count: int) -> Mask:
    labels, found = ndimage.label(mask)
    if found <= count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.argsort(sizes)[::-1][:count])


def _close(mask: Mask, radius: float, spacing: tuple[float, float, float]) -> Mask:
    """Closing by distance (mm), which keeps the border of a padded volume intact."""
    grown = ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius
    closed = ndimage.distance_transform_edt(np.pad(grown, 4, mode="edge"), sampling=spacing)
    inner = closed[4:-4, 4:-4, 4:-4] > radius
    return inner | mask


def _ball(radius: float, spacing: tuple[float, float, float]) -> Mask:
    half = [int(radius // s) for s in spacing]
    grids = np.ogrid[tuple(slice(-h, h + 1) for h in half)]
    distance = sum((g * s) ** 2 for g, s in zip(grids, spacing, strict=True))
    ball: Mask = np.asarray(distance <= radius**2 + 1e-6)
    return ball
