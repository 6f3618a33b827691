"""Statistics of a volume's values, from one pass over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

LOWEST, HIGHEST = -5000, 5000  # HU; values outside are counted at the ends
WRAPPED = 61440  # 65536 - 4096: what negative values become in an unsigned type of 16 bits
_ROWS = 16  # slices at a time, so that a pass needs little memory in addition to the volume


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics from one pass over a channel.

    Attributes:
        minimum, maximum: of the finite values; 0 and 0 if there are none.
        not_finite: number of NaN and infinite voxels.
        histogram: voxels per integer from LOWEST to HIGHEST (finite ones only).
        digest: of shape and values; equal for equal volumes, regardless of their file format.
        wrapped: number of voxels from WRAPPED to 65535.
    """

    minimum: float
    maximum: float
    not_finite: int
    histogram: np.ndarray
    digest: str
    wrapped: int = 0

    def fraction(self, low: int, high: int) -> float:
        """Fraction of the voxels with low <= value <= high."""
        total = int(self.histogram.sum())
        return float(self.histogram[low - LOWEST : high + 1 - LOWEST].sum()) / max(1, total)


def value_statistics(volume: np.ndarray) -> ValueStatistics:
    """Statistics of one channel, (A0, A1, A2) float32."""
    histogram = np.zeros(HIGHEST - LOWEST + 1, dtype=np.int64)
    digest = hashlib.blake2b(repr(volume.shape).encode(), digest_size=16)
    minimum, maximum, not_finite, wrapped = np.inf, -np.inf, 0, 0
    for start in range(0, volume.shape[0], _ROWS):
        part = volume[start : start + _ROWS]
        digest.update(np.ascontiguousarray(part).data)
        values = part.ravel()
        finite = np.isfinite(values)
        if not finite.all():
            not_finite += int(values.size - np.count_nonzero(finite))
            values = values[finite]
        if values.size:
            highest = float(values.max())
            minimum, maximum = min(minimum, float(values.min())), max(maximum, highest)
            if highest >= WRAPPED:
                wrapped += int(np.count_nonzero((values >= WRAPPED) & (values < 65536)))
            clipped = np.rint(np.clip(values, LOWEST, HIGHEST)).astype(np.int32)
            histogram += np.bincount(clipped - LOWEST, minlength=histogram.size)
    if minimum > maximum:
        minimum = maximum = 0.0
    return ValueStatistics(minimum, maximum, not_finite, histogram, digest.hexdigest(), wrapped)


def without_padding(values: ValueStatistics) -> tuple[ValueStatistics, list[tuple[int, float]]]:
    """Remove single values below -1100 that many voxels share: padding outside the field of view.

    Returns:
        The statistics without them, and each padding value with its fraction of the voxels.
    """
    histogram = values.histogram.copy()
    total = max(1, int(histogram.sum()))
    below = histogram[: -1100 - LOWEST]
    found = []
    for index in np.flatnonzero(below >= 0.005 * total):
        around = histogram[max(0, index - 20) : index + 21]
        if below[index] > 0.8 * around.sum():  # a spike, not the slope of a peak
            found.append((int(index) + LOWEST, float(below[index]) / total))
    for value, _ in found:
        histogram[value - LOWEST] = 0
    return replace(values, histogram=histogram), found
