"""One pass over a volume's voxels: range, histogram, values that are no numbers, and a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = -5000, 5000  # HU; what lies outside counts at the ends
_ROWS = 16  # slices at a time, so that a pass needs little memory beside the volume


@dataclass(frozen=True)
class ValueStatistics:
    """What one pass over a channel tells.

    Attributes:
        minimum, maximum: of the finite values; 0 and 0 if there are none.
        not_finite: number of NaN and infinite voxels.
        histogram: voxels per integer from LOWEST to HIGHEST (finite ones only).
        digest: of shape and values; equal for equal volumes, however they were stored.
    """

    minimum: float
    maximum: float
    not_finite: int
    histogram: np.ndarray
    digest: str

    def fraction(self, low: int, high: int) -> float:
        """Part of the voxels with low <= value <= high."""
        total = int(self.histogram.sum())
        return float(self.histogram[low - LOWEST : high + 1 - LOWEST].sum()) / max(1, total)


def value_statistics(volume: np.ndarray) -> ValueStatistics:
    """Statistics of one channel, (A0, A1, A2) float32."""
    histogram = np.zeros(HIGHEST - LOWEST + 1, dtype=np.int64)
    digest = hashlib.blake2b(repr(volume.shape).encode(), digest_size=16)
    minimum, maximum, not_finite = np.inf, -np.inf, 0
    for start in range(0, volume.shape[0], _ROWS):
        part = volume[start : start + _ROWS]
        digest.update(np.ascontiguousarray(part).data)
        values = part.ravel()
        finite = np.isfinite(values)
        if not finite.all():
            not_finite += int(values.size - np.count_nonzero(finite))
            values = values[finite]
        if values.size:
            minimum, maximum = (
                min(minimum, float(values.min())),
                max(maximum, float(values.max())),
            )
            clipped = np.rint(np.clip(values, LOWEST, HIGHEST)).astype(np.int32)
            histogram += np.bincount(clipped - LOWEST, minlength=histogram.size)
    if minimum > maximum:
        minimum = maximum = 0.0
    return ValueStatistics(minimum, maximum, not_finite, histogram, digest.hexdigest())


def without_padding(values: ValueStatistics) -> tuple[ValueStatistics, list[tuple[int, float]]]:
    """Take off the single values below -1100 that many voxels share: padding outside the field.

    Returns:
        The statistics without them, and each padding value with its fraction of the voxels.
    """
    histogram = values.histogram.copy()
    total = max(1, int(histogram.sum()))
    below = histogram[: -1100 - LOWEST]
    found = []
    for index in np.flatnonzero(below >= 0.005 * total):
        around = histogram[max(0, index - 20) : index + 21]
        if below[index] > 0.8 * around.sum():  # a spike, not the flank of a peak
            found.append((int(index) + LOWEST, float(below[index]) / total))
    for value, _ in found:
        histogram[value - LOWEST] = 0
    return (
        ValueStatistics(
            values.minimum, values.maximum, values.not_finite, histogram, values.digest
        ),
        found,
    )
