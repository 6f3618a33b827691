"""Checks of values: are they Hounsfield units, with air near -1000 and soft tissue near 0?

The thresholds were set on whole and cropped scans of chest, abdomen and extremities: soft tissue
(-150..150 HU) makes up at least 20 % of the voxels in all of them, dense bone (874..1174 HU) less
than 0.6 %, and single integers below -1100 that many voxels share are padding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = -5000, 5000  # HU; values outside are counted at the ends
_ROWS = 16  # slices at a time, so that a pass needs little memory in addition to the volume
TISSUE = 150  # HU on both sides of water: fat to muscle and blood
INTERCEPT = 1024  # of nearly all scanners
AIR_TOLERANCE = 75  # scatter, blankets and blur shift the peak of outside air by up to 60
AIR_FRACTION = 0.15  # of the volume; less air than this is not conclusive
AIR_PEAK = 0.65  # of the voxels less dense than fat

Remark = tuple[str, str]  # code, what is wrong


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics from one pass over a channel.

    Attributes:
        minimum, maximum: of the finite values; 0 and 0 if there are none.
        not_finite: number of NaN and infinite voxels.
        histogram: voxels per integer from LOWEST to HIGHEST (finite ones only).
        digest: of shape and values; equal for equal volumes, regardless of their file format.
    """

    minimum: float
    maximum: float
    not_finite: int
    histogram: np.ndarray
    digest: str

    def fraction(self, low: int, high: int) -> float:
        """Fraction of the voxels with low <= value <= high."""
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
    return (
        ValueStatistics(
            values.minimum, values.maximum, values.not_finite, histogram, values.digest
        ),
        found,
    )


def hu_remarks(values: ValueStatistics) -> list[Remark]:
    """Find what contradicts Hounsfield units in a channel named CT.

    Args:
        values: of the whole, not constant volume.
    """
    rest, padding = without_padding(values)
    remarks = [
        ("hu_padding", f"{100 * part:.1f} % of the voxels are {_named(value, values)}")
        for value, part in padding
    ]
    wrong = _wrong_scale(values, rest)
    if wrong is not None:
        return [wrong, *remarks]
    air = _air_remark(rest)
    if air is not None:
        remarks.append(air)
    if _has_large_steps(rest):
        remarks.append(("hu_quantised", "most integers between -150 and 150 HU never occur"))
    return remarks


def _wrong_scale(values: ValueStatistics, rest: ValueStatistics) -> Remark | None:
    low, high = values.minimum, values.maximum
    between = f"all values lie between {low:g} and {high:g}"
    if high - low <= 20:
        return "hu_normalised", between
    if low >= 0 and high <= 255:
        return "hu_windowed", between
    narrow = high - low <= 1500 and low > -900
    if narrow and values.fraction(*_at(low)) > 0.01 and values.fraction(*_at(high)) > 0.01:
        return "hu_windowed", f"{between}, with many voxels at both ends"
    water = rest.fraction(-TISSUE, TISSUE)
    stored = rest.fraction(INTERCEPT - TISSUE, INTERCEPT + TISSUE)
    if stored > 0.1 and rest.fraction(LOWEST, -200) < 0.01:
        return (
            "hu_not_rescaled",
            f"{100 * stored:.0f} % of the voxels lie near 1024 and hardly any below -200",
        )
    twice = rest.fraction(-INTERCEPT - TISSUE, -INTERCEPT + TISSUE)
    if twice > 0.15 and water < min(0.01, 0.03 * twice):
        return (
            "hu_rescaled_twice",
            f"{100 * twice:.0f} % of the voxels lie near -1024 and only {100 * water:.1f} % near 0",
        )
    if water < 0.01:
        return "hu_implausible", f"only {100 * water:.2f} % of the voxels lie near 0; {between}"
    return None


def _named(value: int, values: ValueStatistics) -> str:
    """Values outside the histogram are counted at its end."""
    return f"exactly {value}" if value > LOWEST else f"{values.minimum:g} or little more"


def _at(value: float) -> tuple[int, int]:
    """The range of the one histogram bin that holds a value."""
    clipped = round(max(LOWEST, min(-LOWEST, value)))
    return clipped, clipped


def _has_large_steps(rest: ValueStatistics) -> bool:
    tissue = rest.histogram[-TISSUE - LOWEST : TISSUE + 1 - LOWEST]
    return bool(tissue.sum() > 5000 and np.count_nonzero(tissue) < tissue.size / 3)


def _air_remark(rest: ValueStatistics) -> Remark | None:
    """Check that the air around the body is near -1000.

    Air around a body is one narrow peak, lung a broad one. If most voxels less dense than fat lie
    in one peak of 50 HU, the peak is air (for lungs alone it holds at most 54 %, in 44 scans).
    """
    thin = rest.histogram[-1500 - LOWEST : -400 - LOWEST].astype(np.float64)
    if thin.sum() < AIR_FRACTION * rest.histogram.sum():
        return None
    peak = np.convolve(thin, np.ones(51), mode="same")
    place = int(peak.argmax()) - 1500
    if peak.max() < AIR_PEAK * thin.sum() or abs(place + 1000) <= AIR_TOLERANCE:
        return None
    return "hu_air_off", f"the air around the body lies near {place}"
