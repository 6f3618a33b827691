"""Are these Hounsfield units? Air lies near -1000, soft tissue near 0, and both lie 1000 apart.

The rules were set on whole and cropped scans of chest, abdomen and extremities: soft tissue
(-150..150 HU) is 20 % and more of the voxels in all of them, bone as dense as 874..1174 HU below
0.6 %, and single integers below -1100 that many voxels share are padding.
"""

from __future__ import annotations

import numpy as np

from colipri.raw_dataset.verification_values import LOWEST, ValueStatistics, without_padding

TISSUE = 150  # HU on both sides of water: fat to muscle and blood
INTERCEPT = 1024  # of nearly all scanners
AIR_TOLERANCE = 75  # scatter, blankets and blur move the peak of outside air by up to 60
AIR_FRACTION = 0.15  # of the volume; less air than this says nothing
AIR_PEAK = 0.65  # of what is thinner than fat

Remark = tuple[str, str]  # code, what is wrong


def hu_remarks(values: ValueStatistics) -> list[Remark]:
    """What contradicts Hounsfield units in a channel that is called CT.

    Args:
        values: of the whole volume; not constant.
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
    """Values beyond the histogram are counted at its end."""
    return f"exactly {value}" if value > LOWEST else f"{values.minimum:g} or little more"


def _at(value: float) -> tuple[int, int]:
    """The histogram's bin of a value."""
    clipped = round(max(LOWEST, min(-LOWEST, value)))
    return clipped, clipped


def _has_large_steps(rest: ValueStatistics) -> bool:
    tissue = rest.histogram[-TISSUE - LOWEST : TISSUE + 1 - LOWEST]
    return bool(tissue.sum() > 5000 and np.count_nonzero(tissue) < tissue.size / 3)


def _air_remark(rest: ValueStatistics) -> Remark | None:
    """Is the air around the body near -1000?

    Air around a body is one narrow peak, lung a broad one; where most of what is thinner than fat
    lies in one peak of 50 HU, the peak is air (54 % at most for lungs alone, in 44 scans).
    """
    thin = rest.histogram[-1500 - LOWEST : -400 - LOWEST].astype(np.float64)
    if thin.sum() < AIR_FRACTION * rest.histogram.sum():
        return None
    peak = np.convolve(thin, np.ones(51), mode="same")
    place = int(peak.argmax()) - 1500
    if peak.max() < AIR_PEAK * thin.sum() or abs(place + 1000) <= AIR_TOLERANCE:
        return None
    return "hu_air_off", f"the air around the body lies near {place}"
