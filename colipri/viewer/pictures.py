"""Scans and heat maps as the NIfTI files that the page draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from colipri.imageio.image import MedicalImage, reorient
from colipri.inference.heatmap import strongest_place
from colipri.inference.heatmap_files import HeatMap

MOST_PER_AXIS = 2048  # voxels; what WebGL2 draws nearly everywhere
MOST_VOXELS = 1 << 28  # 1,024 slices of 512 x 512; a browser needs 1.5 GB for them
_INT16 = (-32768, 32767)
_HEAT_STEP = 1e-4  # of the stored values
UNKNOWN = -3.0  # stored where a map has no value; cosines differ by 2 at most


@dataclass(frozen=True)
class ShownScan:
    """A scan as the page draws it.

    Attributes:
        content: a NIfTI file, axes to (Right, Anterior, Superior).
        shape: voxels of the file as it was read, in these axes.
        spacing: mm of the file as it was read, in these axes.
        steps: every how-many-th voxel is shown along each axis.
        limits: intensities shown black and white where there is no window: 1st and 99th percentile.
    """

    content: bytes
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    steps: tuple[int, int, int]
    limits: tuple[float, float]


def show_scan(
    image: MedicalImage, channel: int = 0, most: int = MOST_VOXELS, per_axis: int = MOST_PER_AXIS
) -> ShownScan:
    """Return a channel of a scan, thinned out along its finest axes if browsers cannot draw it all.

    Args:
        image: as read.
        channel: to show.
        most: voxels.
        per_axis: voxels along each axis.
    """
    array, affine, spacing = reorient(image.array[channel : channel + 1], image.affine, "RAS")
    values = array[0]
    a, b, c = values.shape
    steps = thinning((a, b, c), spacing, most, per_axis)
    thinned = values[:: steps[0], :: steps[1], :: steps[2]]
    low, high = np.percentile(thinned[::2, ::2, ::2], [1, 99])
    limits = (float(low), float(max(high, low + 1e-6)))
    content = _nifti(_as_int16(thinned), affine @ np.diag([*steps, 1]))
    return ShownScan(content, (a, b, c), spacing, steps, limits)


def thinning(
    shape: Sequence[int], spacing: Sequence[float], most: int, per_axis: int
) -> tuple[int, int, int]:
    """Return every how-many-th voxel is shown along each axis.

    Args:
        shape: voxels.
        spacing: mm.
        most: voxels that may be shown.
        per_axis: the same along each axis.
    """
    steps = [math.ceil(size / per_axis) for size in shape]

    def shown() -> int:
        return math.prod(-(-size // step) for size, step in zip(shape, steps, strict=True))

    while shown() > most:
        finest = min(range(3), key=lambda axis: spacing[axis] * steps[axis])
        steps[finest] += 1
    first, second, third = steps
    return first, second, third


def heat_file(heat: HeatMap) -> bytes:
    """Return a heat map on its own grid as NIfTI; :data:`UNKNOWN` where it has no value."""
    known = np.where(np.isfinite(heat.heat), heat.heat, UNKNOWN)
    array, affine, _ = reorient(known[None], heat.affine, "RAS")
    stored = np.rint(array[0] / _HEAT_STEP).astype(np.int16)
    return _nifti(stored, affine, _HEAT_STEP)


def strongest_millimetres(heat: HeatMap) -> list[float]:
    """Return the place of the highest value in RAS millimetres."""
    place = heat.affine @ [*strongest_place(heat.heat), 1]
    return [round(float(value), 2) for value in place[:3]]


def _as_int16(values: np.ndarray) -> np.ndarray:
    """The same values in half the memory where nothing is lost."""
    rounded = np.rint(values)
    low, high = float(values.min()), float(values.max())
    lossless = low >= _INT16[0] and high <= _INT16[1] and bool((rounded == values).all())
    return rounded.astype(np.int16) if lossless else values.astype(np.float32)


def _nifti(values: np.ndarray, affine: np.ndarray, slope: float | None = None) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0 if slope is None else slope, 0.0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4) + values.tobytes(order="F")
