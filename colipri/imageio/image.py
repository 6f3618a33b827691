"""An image in memory: values, and where each voxel lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MedicalImage:
    """A 3D image with one or more channels.

    Attributes:
        array: (C, A0, A1, A2) float32; HU for CT.
        spacing: mm per voxel along A0, A1, A2.
        orientation: where the array axes point, e.g. "SAR": superior, anterior, right.
        affine: 4 x 4, index (a0, a1, a2) -> RAS millimetres (x right, y anterior, z superior).
        properties: what the file said: original_shape, original_spacing, original_orientation
            (file axis order), dtype, files, reader.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    orientation: str
    affine: np.ndarray
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image file without reading its voxels.

    Attributes:
        shape: voxels per axis in file order (x, y, z), as many as the file has dimensions.
        spacing: mm, in the same order.
        orientation: where the file's axes point, e.g. "LPS"; "" if it is not three-dimensional.
        dtype: stored type, e.g. "int16".
        num_components: values per voxel (1 for a scalar image).
        affine: 4 x 4, file index (i, j, k) -> RAS mm; None if it is not three-dimensional.
        has_orientation: False where the file says nothing about space (identity by default).
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    dtype: str
    num_components: int
    affine: np.ndarray | None
    has_orientation: bool = True

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.shape)
