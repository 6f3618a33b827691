"""Where in the image a text is: similarity of every token to a text, overlaid on slices.

Tokens are projected by the value and output projections of the attention pool alone
(``ColipriModel.project_tokens``), which puts each place into the shared space; only objective S
trains that on locations. A map shows what the embedding is made of; it is not a segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from scipy import ndimage
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.imageio.body import TISSUE_ABOVE_HU, WORKING_SPACING_MM, body_mask
from colipri.inference.volume import Volume
from colipri.plans.plans import Configuration, Plans
from colipri.preprocessing.body_grid import crop_padded
from colipri.preprocessing.intensities import ct_channel_of, stores_hounsfield

CT_WINDOW = (-1000.0, 400.0)  # HU shown from black to white: lung and soft tissue in one picture
_PLANES = ("axial", "coronal", "sagittal")


def token_similarity(
    dense_embeddings: Tensor, positive: Tensor, negative: Tensor | None = None
) -> np.ndarray:
    """Return the cosine of every token to a text.

    Args:
        dense_embeddings: (K, E), as ``project_tokens`` gives them.
        positive: (E,) the text.
        negative: (E,) the text that denies; its similarity is subtracted, which takes out what
            both share (anatomy, "no" aside).

    Returns:
        (K,) float32.
    """
    dense = F.normalize(dense_embeddings.float(), dim=-1)
    similarity = dense @ F.normalize(positive.float(), dim=-1)
    if negative is not None:
        similarity = similarity - dense @ F.normalize(negative.float(), dim=-1)
    result: np.ndarray = similarity.cpu().numpy()
    return result


def inside_of_body(
    volume: Volume,
    start: Sequence[int],
    size: Sequence[int],
    plans: Plans,
    configuration: Configuration,
) -> np.ndarray:
    """Return the voxels of a crop that are inside the body, lungs and bowel gas included.

    A token that touches the skin is encoded whole, and at its border most of it is air. A heat map
    that counts all of the token points into that air.

    Args:
        volume: A preprocessed volume.
        start: First voxel of the crop; may be negative (padding).
        size: Voxels of the crop.
        plans: That the volume was preprocessed with.
        configuration: Of the plans.

    Returns:
        (*size) bool. All True where no channel is in Hounsfield units: other modalities have no
        value that means air.
    """
    channel = ct_channel_of(configuration)
    if channel is None:
        return np.ones(tuple(size), dtype=bool)
    whole = [
        -(-length // edge) * edge
        for length, edge in zip(volume.shape, configuration.token_patch_size, strict=True)
    ]
    stored = volume.crop((0, 0, 0), whole)[0][channel][tuple(map(slice, volume.shape))]
    hounsfield = stored.astype(np.float32)
    if not stores_hounsfield(configuration):
        numbers = plans.intensities(channel)
        hounsfield = hounsfield * numbers.std + numbers.mean
    mask = body_mask(hounsfield[None], configuration.spacing)
    # body_mask ends up to two working voxels outside the skin, so that no crop loses any of it
    rim = [math.ceil(2 * WORKING_SPACING_MM / step) for step in configuration.spacing]
    core = ndimage.minimum_filter(mask, [2 * width + 1 for width in rim], mode="nearest")
    mask &= core | (hounsfield > TISSUE_ABOVE_HU)
    found: np.ndarray = crop_padded(mask[None], start, size, 0)[0].astype(bool)
    return found


def voxel_map(
    similarity: np.ndarray,
    positions: np.ndarray,
    grid: Sequence[int],
    token_patch: Sequence[int],
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Return the token values on the voxel grid, linear between token centres, NaN outside the kept
    tokens.

    Args:
        similarity: (K,).
        positions: (K, 3) token coordinates in ``grid``.
        grid: (G0, G1, G2) tokens.
        token_patch: Voxels per token.
        inside: (G0 * patch0, ...) bool, the voxels that may have a value (:func:`inside_of_body`);
            None for all of the kept tokens.

    Returns:
        (G0 * patch0, G1 * patch1, G2 * patch2) float32.
    """
    values = np.zeros(tuple(grid), dtype=np.float32)
    known = np.zeros(tuple(grid), dtype=np.float32)
    index = tuple(np.asarray(positions).T)
    values[index], known[index] = similarity, 1
    smooth, weight = (upsampled(array, token_patch) for array in (values, known))
    kept = known.astype(bool)
    for axis, patch in enumerate(token_patch):
        kept = kept.repeat(patch, axis=axis)
    if inside is not None and (kept & inside).any():
        kept &= inside
    return np.where(kept, smooth / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def upsampled(values: np.ndarray, token_patch: Sequence[int]) -> np.ndarray:
    """Return token values on the voxel grid, linear between the centres of patches.

    Equal to ``scipy.ndimage.zoom(values, patch, order=1, mode="nearest", grid_mode=True)``, axis by
    axis and hence many times faster.

    Args:
        values: (G0, G1, G2).
        token_patch: Voxels per token.
    """
    result = values
    for axis, (length, patch) in enumerate(zip(values.shape, token_patch, strict=True)):
        result = np.moveaxis(np.tensordot(_linear(length, patch), result, (1, axis)), 0, axis)
    return result


def _linear(length: int, patch: int) -> np.ndarray:
    """(length * patch, length) weights of linear interpolation; constant beyond the centres."""
    places = np.clip((np.arange(length * patch) + 0.5) / patch - 0.5, 0, length - 1)
    lower = np.minimum(places.astype(int), max(length - 2, 0))
    weights = np.zeros((len(places), length), dtype=np.float32)
    rows = np.arange(len(places))
    weights[rows, lower] = 1 - (places - lower)
    weights[rows, np.minimum(lower + 1, length - 1)] += (places - lower).astype(np.float32)
    return weights


def strongest_place(heat: np.ndarray) -> tuple[int, int, int]:
    """Return the voxel of the highest value.

    Raises:
        ColipriError: the map is empty.
    """
    if not np.isfinite(heat).any():
        raise ColipriError("the heat map is empty: no token of the image was kept")
    place = np.unravel_index(int(np.nanargmax(heat)), heat.shape)
    return int(place[0]), int(place[1]), int(place[2])


def overlay_planes(
    image: np.ndarray,
    heat: np.ndarray,
    spacing: Sequence[float],
    *,
    place: Sequence[int] | None = None,
    window: tuple[float, float] | None = CT_WINDOW,
    limits: tuple[float, float] | None = None,
    strength: float = 0.75,
) -> list[dict[str, Any]]:
    """Lay the heat over an axial, a coronal and a sagittal slice.

    Args:
        image: (A0, A1, A2), axes to (Superior, Anterior, Right).
        heat: The same shape, NaN where nothing is known.
        spacing: mm along the axes.
        place: Voxel through which the slices go; default: the strongest.
        window: Intensities shown black and white; None: 1st and 99th percentile.
        limits: Heat at the ends of the scale; default: median and 99.8th percentile of the map.
            Maps that are to be compared need the same limits.
        strength: Opacity of the strongest heat.

    Returns:
        Three of {"name", "pixels": (rows, columns, 3) uint8, "millimetres": (row, column step)},
        in radiological view: the patient's right on the left side, anterior up or left.
    """
    if image.shape != heat.shape:
        raise ColipriError(f"image {image.shape} and heat map {heat.shape} do not fit")
    place = strongest_place(heat) if place is None else place
    low, high = limits or _limits(heat)
    shares = np.clip((heat - low) / max(high - low, 1e-9), 0, 1)
    planes = []
    for (name, grey, step), (_, share, _) in zip(
        slice_planes(image, spacing, place), slice_planes(shares, spacing, place), strict=True
    ):
        base = to_grey(grey, window)[..., None].astype(np.float32).repeat(3, axis=2)
        colour = 255 * colormaps["inferno"](np.nan_to_num(share))[..., :3]
        opacity = strength * np.sqrt(np.nan_to_num(share))[..., None]
        mixed = base * (1 - opacity) + colour * opacity
        pixels = np.clip(mixed, 0, 255).astype(np.uint8)
        planes.append({"name": name, "pixels": pixels, "millimetres": step})
    return planes


def slice_planes(
    volume: np.ndarray, spacing: Sequence[float], place: Sequence[int]
) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """Cut the three planes through a voxel, as radiologists look at them.

    Args:
        volume: (A0, A1, A2), axes growing to (Superior, Anterior, Right).
        spacing: mm along the axes.
        place: Voxel that all planes contain.

    Returns:
        (name, slice, (row, column) step in mm), for axial, coronal and sagittal.
    """
    superior, anterior, right = (int(index) for index in place)
    up, forward, side = (float(step) for step in spacing)
    slices = (
        (volume[superior], (forward, side)),
        (volume[:, anterior], (up, side)),
        (volume[:, :, right], (up, forward)),
    )
    return [
        (name, plane[::-1, ::-1], step) for name, (plane, step) in zip(_PLANES, slices, strict=True)
    ]


def to_grey(values: np.ndarray, window: tuple[float, float] | None = CT_WINDOW) -> np.ndarray:
    """Return a uint8 picture of intensities; ``window`` None takes the 1st and 99th
    percentile.
    """
    low, high = window or tuple(np.percentile(values, [1, 99]))
    share = (values.astype(np.float32) - low) / max(float(high - low), 1e-9)
    result: np.ndarray = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    return result


def _limits(heat: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(heat).any():
        raise ColipriError("the heat map is empty: no token of the image was kept")
    low, high = np.nanpercentile(heat, [50, 99.8])
    return float(low), float(high)
