"""TIFF stacks with nnU-Net's spacing file; tifffile reads them, as in nnU-Net."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from colipri.common.atomic import read_json
from colipri.common.errors import ColipriError
from colipri.imageio.errors import ImageError
from colipri.imageio.image import ImageHeader, orientation_of
from colipri.imageio.itk_files import unreadable
from colipri.imageio.parts import spacing_file


def is_tiff(path: Path) -> bool:
    """True if the name has a TIFF ending."""
    return path.name.lower().endswith((".tif", ".tiff"))


def read_tiff(path: Path) -> tuple[np.ndarray, ImageHeader]:
    """Read voxels (i, j, k) and header; TIFF has no orientation, so the axes are taken as stored.

    Without a spacing file the spacing is 1 mm, as for nnU-Net; the verification reports it.

    Raises:
        ImageError: the file or its spacing file cannot be read.
    """
    try:
        stored: Any = tifffile.imread(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise unreadable(path, error) from error
    volume = np.asarray(stored).transpose()
    if volume.ndim != 3:
        return volume, ImageHeader(
            volume.shape, (1.0,) * volume.ndim, "", str(volume.dtype), 1, None
        )
    spacing = _spacing(path)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    dtype = str(volume.dtype)
    return volume, ImageHeader(
        volume.shape, spacing, orientation_of(affine), dtype, 1, affine, False
    )


def _spacing(path: Path) -> tuple[float, float, float]:
    """(x, y, z) of the spacing file, which lists z, y, x."""
    file = spacing_file(path)
    if not file.is_file():
        return 1.0, 1.0, 1.0
    try:
        z, y, x = (float(step) for step in read_json(file)["spacing"])
    except (ColipriError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f'image {path} cannot be read: {file} must hold {{"spacing": [z, y, x]}}'
        ) from error
    if not all(math.isfinite(step) and step > 0 for step in (x, y, z)):
        raise ImageError(f"image {path} cannot be read: {file} states the spacing {[z, y, x]}")
    return x, y, z
