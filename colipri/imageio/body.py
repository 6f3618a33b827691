"""The patient in a volume: body mask and bounding box.

All axes point to (Superior, Anterior, Right). Most of a CT volume is air around the patient, and
part of the rest is the table. Both cost tokens and carry no information. The mask of a CT is
computed on a grid of about 3 mm, fine enough for a crop and for token patches of 8 voxels, in a
fraction of a second.

CT (one channel in HU): tissue is everything above -500 HU. A small opening in the axial plane
removes the thin shells of the table and blankets. The large components that remain are the body,
and what they enclose in an axial slice (lungs, bowel gas) is filled. Lungs that touch the side of a
volume smaller than the chest are distinguished from outside air by the fraction of their voxels
that is as empty as air. Where the two cannot be distinguished, the air stays in the mask: that
costs tokens, but never loses lung.
Any other modality: the nonzero voxels with their holes filled, like nnU-Net's crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

TISSUE_ABOVE_HU = -500.0  # midway between lung or air and fat or water
EMPTY_BELOW_HU = -950.0  # 84 to 97 % of outside air, 0 to 50 % of lungs (emphysema) in ten scans
OUTSIDE_IF_EMPTY = 0.5  # fraction of an air region that touches the side of the volume
CUT_LUNG_FRACTION = 0.02  # of the slice: a lung cut by the field of view is not smaller than this
WORKING_SPACING_MM = 3.0  # thinner than a chest wall, thicker than a table's shell
SMALL_PART = 0.02  # arms and legs are a few per cent of a trunk; table remnants are smaller
LOST_TOO_MUCH = 0.6  # an opening that leaves less than this fraction is not trusted
DEFAULT_MARGIN_MM = 5.0  # covers the skin's edge against air and the error of the working grid

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def find_ct_channel(channel_names: Mapping[str, str]) -> int | None:
    """The index of the channel named CT (nnU-Net's rule, case-insensitive), or None."""
    for index, name in channel_names.items():
        if str(name).casefold() == "ct":
            return int(index)
    return None


def body_mask(
    array: np.ndarray, spacing: Sequence[float], ct_channel: int | None = 0
) -> np.ndarray:
    """Voxels that belong to the body, including the air inside it.

    Args:
        array: (C, A0, A1, A2), axes pointing to (Superior, Anterior, Right); HU in ``ct_channel``.
        spacing: mm per voxel along A0, A1, A2.
        ct_channel: index of the CT channel; None uses the voxels that are nonzero in any channel.

    Returns:
        bool (A0, A1, A2). All True if no body is found, so that nothing is lost.
    """
    shape = array.shape[1:]
    if ct_channel is None:
        mask: np.ndarray = ndimage.binary_fill_holes((array != 0).any(axis=0))
        return mask if mask.any() else np.ones(shape, dtype=bool)
    stride = tuple(
        max(1, min(round(WORKING_SPACING_MM / step), size // 8))
        for step, size in zip(spacing, shape, strict=True)
    )
    mask = _ct_mask(array[ct_channel, :: stride[0], :: stride[1], :: stride[2]])
    if not mask.any():
        return np.ones(shape, dtype=bool)
    for axis in range(3):
        mask = np.repeat(mask, stride[axis], axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def mask_box(mask: np.ndarray, spacing: Sequence[float], margin_mm: float = 0.0) -> Box:
    """The smallest box around a mask, widened by a margin and clipped to the volume.

    Args:
        mask: bool (A0, A1, A2).
        spacing: mm per voxel along A0, A1, A2.
        margin_mm: added on every side, rounded up to whole voxels.

    Returns:
        (start, stop) in voxels for each axis; the whole axis if the mask is empty.
    """
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        margin = int(np.ceil(margin_mm / spacing[axis]))
        if inside.size == 0:
            box.append((0, mask.shape[axis]))
            continue
        start = max(0, int(inside[0]) - margin)
        stop = min(mask.shape[axis], int(inside[-1]) + 1 + margin)
        box.append((start, stop))
    return (box[0], box[1], box[2])


def _ct_mask(volume: np.ndarray) -> np.ndarray:
    """Body on the working grid; ``volume`` is (A0, A1, A2) in HU."""
    tissue = volume > TISSUE_ABOVE_HU
    if not tissue.any():
        return tissue
    axial_cross = np.zeros((3, 3, 3), dtype=bool)
    axial_cross[1] = ndimage.generate_binary_structure(2, 1)
    parts = _large_parts(tissue)
    opened = ndimage.binary_opening(_pad_axial(tissue), structure=axial_cross)[:, 1:-1, 1:-1]
    # recovers what the opening took from the surface, but not a table that it cut off
    body = ndimage.binary_dilation(
        _large_parts(opened), structure=axial_cross, iterations=2, mask=tissue
    )
    enclosed = _fill_axial(body)
    with_table = _fill_axial(parts)
    if enclosed.sum() < LOST_TOO_MUCH * with_table.sum():  # the opening broke a thin chest wall
        enclosed = with_table
    body = enclosed | _cut_lungs(enclosed, volume)
    # one more working voxel, so that skin between two samples is inside
    return ndimage.binary_dilation(body, structure=ndimage.generate_binary_structure(3, 1))


def _pad_axial(tissue: np.ndarray) -> np.ndarray:
    """Repeat the edge, so that an opening does not remove tissue at the border of the volume."""
    return np.pad(tissue, ((0, 0), (1, 1), (1, 1)), mode="edge")


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """The largest connected component, and others that are not much smaller than a limb."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= max(1, SMALL_PART * sizes.max())
    return keep[labels]


def _fill_axial(mask: np.ndarray) -> np.ndarray:
    """Add what ``mask`` (A0, A1, A2) encloses within each axial slice."""
    regions, at_side = _axial_regions(~mask)
    return mask | (~at_side & (np.arange(at_side.size) > 0))[regions]


def _cut_lungs(body: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Air regions of axial slices that reach the side of the volume but are lung."""
    regions, at_side = _axial_regions(~body)
    air = (volume <= TISSUE_ABOVE_HU) & ~body
    sizes = np.bincount(regions[air], minlength=at_side.size)
    empty = np.bincount(regions[air & (volume < EMPTY_BELOW_HU)], minlength=at_side.size)
    lung = at_side & (empty < OUTSIDE_IF_EMPTY * sizes)
    lung &= sizes >= CUT_LUNG_FRACTION * volume[0].size
    return air & lung[regions]


def _axial_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label connected regions within axial slices (0 = none), and flag labels that reach a side."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    regions, count = ndimage.label(mask, structure=in_plane)
    at_side = np.zeros(count + 1, dtype=bool)
    for side in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        at_side[side.ravel()] = True
    at_side[0] = False
    return regions, at_side
