"""Bringing array axes into a named orientation, by flips and permutations only."""

from __future__ import annotations

import numpy as np

# The released COLIPRI package changed from SAR to RAS between versions without a word in the
# checkpoint; here the orientation is in plan, store and checkpoint, and asserted.
DEFAULT_ORIENTATION = "SAR"
_AXIS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def orientation_of(affine: np.ndarray) -> str:
    """Codes of the directions in which the array axes mostly point.

    Args:
        affine: 4 x 4, array index -> RAS mm.
    """
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(affine))


def reorient(
    array: np.ndarray, affine: np.ndarray, target: str
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Flip and permute the three spatial axes until they point as ``target`` says.

    Args:
        array: (C, A0, A1, A2).
        affine: array index -> RAS mm.
        target: three axis codes, e.g. "SAR".

    Returns:
        The array (a view where possible), its affine, and the spacing in mm.
    """
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    if sorted(_AXIS[code][0] for code in target) != [0, 1, 2]:
        raise ValueError(f"'{target}' does not name three different axes")
    transform = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(target)))
    spatial_shape = array.shape[1:]
    new_affine = affine @ inv_ornt_aff(transform, spatial_shape)
    flipped = array
    for axis, direction in enumerate(transform[:, 1]):
        if direction < 0:
            flipped = np.flip(flipped, axis=axis + 1)
    source_of_new_axis = np.argsort(transform[:, 0])
    reordered = flipped.transpose(0, *(int(axis) + 1 for axis in source_of_new_axis))
    a, b, c = (float(np.linalg.norm(new_affine[:3, axis])) for axis in range(3))
    return reordered, new_affine, (a, b, c)
