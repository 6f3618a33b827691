"""Spacings and sizes of a data set in the axes that the encoder sees, from headers alone.

nnU-Net's fingerprint is made with the data set's usual reader, which keeps the axes of the files.
The plan's reader turns them; here the fingerprint's numbers are put into the turned order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from colipri.common.errors import ColipriError

READABLE = (".nii", ".nii.gz")  # what that reader reads


def oriented_axes(image: Path) -> tuple[int, int, int]:
    """For each of the axes S, A, R: which axis of the usual readers' array (reversed i, j, k).

    Raises:
        ColipriError: the header cannot be read, or the image is not three-dimensional.
    """
    try:
        header: Any = nibabel.load(image)
    except (ImageFileError, OSError, ValueError) as error:
        raise ColipriError(f"{image} cannot be read as NIfTI: {error}") from error
    if len(header.shape) != 3:
        raise ColipriError(f"{image} has {len(header.shape)} dimensions; three are needed")
    directions = nibabel.io_orientation(header.affine)[:, 0]  # file axis -> R, A or S (0, 1, 2)
    if np.isnan(directions).any():
        raise ColipriError(f"{image}: its header has no usable orientation (a zero axis)")
    file_axis = np.argsort(directions)  # R, A, S -> file axis
    s, a, r = (int(2 - file_axis[world]) for world in (2, 1, 0))
    return s, a, r


def reorder(values: Sequence[float], axes: Sequence[int]) -> list[float]:
    """Numbers per axis in another order of axes."""
    return [float(values[axis]) for axis in axes]
