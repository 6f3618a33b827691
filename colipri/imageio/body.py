"""Where the patient is: body mask and body box of a volume.

Axes point to (Superior, Anterior, Right) everywhere. Most of a CT volume is air around the patient,
and part of the rest is the table. Both cost tokens and teach nothing. The mask of a CT is found on
a grid of about 3 mm, fine enough for a crop and for token patches of 8 voxels, in a fraction of a
second.

CT (one channel in HU): tissue is what lies above -500 HU. A small opening in the axial plane takes
off the thin shells of the table and blankets, the large components that remain are the body, and
what they enclose in an axial slice (lungs, bowel gas) is filled. Lungs that touch the side of a
volume smaller than the chest are told from outside air by how few of their voxels are as empty as
air. Where the two cannot be told apart the air is kept: that costs tokens, never lung.
Everything else than CT: what is not zero, filled, as nnU-Net's crop does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

TISSUE_ABOVE_HU = -500.0  # midway between lung or air and fat or water
EMPTY_BELOW_HU = -950.0  # 84 to 97 % of outside air, 0 to 50 % of lungs (emphysema) in ten scans
OUTSIDE_IF_EMPTY = 0.5  # fraction of an air region that touches the side of the volume
CUT_LUNG_FRACTION = 0.02  # of the slice: a lung cut by the field of view is not smaller than this
WORKING_SPACING_MM = 3.0  # thinner than a chest wall, thicker than a table's shell
SMALL_PART = 0.02  # arms and legs are a few per cent of a trunk; table rests are less
LOST_TOO_MUCH = 0.6  # opening may not cost more than this fraction, or it is not trusted
DEFAULT_MARGIN_MM = 5.0  # skin with its edge against air, and the error of the working grid

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def find_ct_channel(channel_names: Mapping[str, str]) -> int | None:
    """The index of the channel called CT (nnU-Net's rule: the name, in any case), or None."""
    for index, name in channel_names.items():
        if str(name).casefold() == "ct":
            return int(index)
    return None


def body_mask(
    array: np.ndarray, spacing: Sequence[float], ct_channel: int | None = 0
) -> np.ndarray:
    """Voxels that belong to the body, air inside it included.

    Args:
        array: (C, A0, A1, A2), axes pointing to (Superior, Anterior, Right); HU in ``ct_channel``.
        spacing: mm per voxel along A0, A1, A2.
        ct_channel: which channel is a CT; None uses what is not zero in any channel.

    Returns:
        bool (A0, A1, A2). All True where nothing can be told from air (so nothing is ever lost).
    """
    shape = array.shape[1:]
    if ct_channel is None:
        mask = _nonzero_mask(array)
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
    """The smallest box around ``mask`` (A0, A1, A2), widened by ``margin_mm``, as (start, stop)."""
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


def body_bounding_box(
    array: np.ndarray,
    spacing: Sequence[float],
    ct_channel: int | None = 0,
    margin_mm: float = DEFAULT_MARGIN_MM,
) -> Box:
    """The box that preprocessing crops to: (start, stop) in voxels for A0, A1, A2."""
    return mask_box(body_mask(array, spacing, ct_channel), spacing, margin_mm)


def _nonzero_mask(array: np.ndarray) -> np.ndarray:
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    mask: np.ndarray = create_nonzero_mask(array)
    return mask


def _ct_mask(volume: np.ndarray) -> np.ndarray:
    """Body on the working grid; ``volume`` is (A0, A1, A2) in HU."""
    from scipy import ndimage

    tissue = volume > TISSUE_ABOVE_HU
    if not tissue.any():
        return tissue
    axial_cross = np.zeros((3, 3, 3), dtype=bool)
    axial_cross[1] = ndimage.generate_binary_structure(2, 1)
    parts = _large_parts(tissue)
    opened = ndimage.binary_opening(_pad_axial(tissue), structure=axial_cross)[:, 1:-1, 1:-1]
    # what the opening took from the surface comes back, a table that it cut off does not
    body = ndimage.binary_dilation(
        _large_parts(opened), structure=axial_cross, iterations=2, mask=tissue
    )
    enclosed = _fill_axial(body)
    with_table = _fill_axial(parts)
    if enclosed.sum() < LOST_TOO_MUCH * with_table.sum():  # a thin chest wall was opened
        enclosed = with_table
    body = enclosed | _cut_lungs(enclosed, volume)
    # one working voxel more, so that skin between two samples is inside
    return ndimage.binary_dilation(body, structure=ndimage.generate_binary_structure(3, 1))


def _pad_axial(tissue: np.ndarray) -> np.ndarray:
    """Repeat the edge, so that an opening does not eat tissue that the field of view cuts off."""
    return np.pad(tissue, ((0, 0), (1, 1), (1, 1)), mode="edge")


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """The largest connected component, and others that are not much smaller than a limb."""
    from scipy import ndimage

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
    """Air of an axial slice that reaches the side of the volume and is lung all the same."""
    regions, at_side = _axial_regions(~body)
    air = (volume <= TISSUE_ABOVE_HU) & ~body
    sizes = np.bincount(regions[air], minlength=at_side.size)
    empty = np.bincount(regions[air & (volume < EMPTY_BELOW_HU)], minlength=at_side.size)
    lung = at_side & (empty < OUTSIDE_IF_EMPTY * sizes)
    lung &= sizes >= CUT_LUNG_FRACTION * volume[0].size
    return air & lung[regions]


def _axial_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions within axial slices (0 = none), and which labels reach a side."""
    from scipy import ndimage

    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    regions, count = ndimage.label(mask, structure=in_plane)
    at_side = np.zeros(count + 1, dtype=bool)
    for side in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        at_side[side.ravel()] = True
    at_side[0] = False
    return regions, at_side
