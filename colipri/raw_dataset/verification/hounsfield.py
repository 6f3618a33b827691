"""Checks of values: are they Hounsfield units, with air near -1000 and soft tissue near 0?

The thresholds were set on whole and cropped scans of chest, abdomen and extremities: soft tissue
(-150..150 HU) makes up at least 20 % of the voxels in all of them, dense bone (874..1174 HU) less
than 0.6 %, no single integer above -900 more than 1 %, no voxel lies above 4000 HU, and less than
1 % lie below -1300, apart from padding: single integers below -1100 that many voxels share.
"""

from __future__ import annotations

import numpy as np

from colipri.raw_dataset.verification.values import LOWEST, ValueStatistics, without_padding

NO_FAT = -30  # HU; every scan of a body has voxels below, inside the skull by its noise
TISSUE = 150  # HU on both sides of water: fat to muscle and blood
INTERCEPT = 1024  # of nearly all scanners
AIR_TOLERANCE = 75  # scatter, blankets and blur shift the peak of outside air by up to 60
AIR_FRACTION = 0.15  # of the volume; less air than this is not conclusive
AIR_PEAK = 0.65  # of the voxels less dense than fat
HIGHEST_HU = 4000  # only metal is denser
METAL_FRACTION = 0.01  # of the volume: two hip prostheses are half of that
BELOW_AIR_HU, BELOW_AIR_FRACTION = -1300, 0.03  # noise of a low dose reaches it, but rarely
BONE_FRACTION = (0.002, 0.05)  # of the volume, denser than 490 HU
WRAPPED_FRACTION = 0.02
SHIFTED_FRACTION = 0.02  # a part of the volume that is shifted shows a second peak of this size
SPIKE_FRACTION, SPIKE_FACTOR = 0.03, 4.0  # of the volume; of the next most frequent integer around

Remark = tuple[str, str]  # code, what is wrong


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
    wrong = _wrong_scale(values, rest) or _wrong_part(values, rest)
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
    wrong_type = _unsigned(values) or _inverted(rest)
    if wrong_type is not None:
        return wrong_type
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
    if low > NO_FAT:
        return (
            "hu_implausible",
            f"no voxel is below {NO_FAT} HU, where fat and air are; {between}: MR, or "
            "a CT that was shifted or cut off",
        )
    if water < 0.01:
        return "hu_implausible", f"only {100 * water:.2f} % of the voxels lie near 0; {between}"
    return None


def _unsigned(values: ValueStatistics) -> Remark | None:
    """Negative values that were read as unsigned: -1000 is 64536 with 16 bits, 3096 with 12."""
    wrapped = values.wrapped / max(1, int(values.histogram.sum()))
    if wrapped > WRAPPED_FRACTION:
        return "hu_unsigned", f"{100 * wrapped:.0f} % of the voxels lie between 61440 and 65535"
    air = values.fraction(4096 - 1200, 4096 - 700)
    if values.minimum >= 0 and air > 0.1 and values.fraction(0, TISSUE) > 0.02:
        return "hu_unsigned", f"{100 * air:.0f} % of the voxels lie near 3096, none below 0"
    return None


def _inverted(rest: ValueStatistics) -> Remark | None:
    """Air as the brightest: one peak at the upper end, tissue about 1040 below, bone below that."""
    cumulative = np.cumsum(rest.histogram)
    top = int(np.searchsorted(cumulative, 0.998 * cumulative[-1])) + LOWEST
    air, tissue = rest.fraction(top - 200, top), rest.fraction(top - 1340, top - 890)
    bone = rest.fraction(LOWEST, top - 1540)
    if min(air, tissue) < 0.1 or not BONE_FRACTION[0] <= bone <= BONE_FRACTION[1]:
        return None
    return (
        "hu_inverted",
        f"{100 * air:.0f} % of the voxels are the densest, near {top - 40}, and "
        f"{100 * tissue:.0f} % lie about 1040 below",
    )


def _wrong_part(values: ValueStatistics, rest: ValueStatistics) -> Remark | None:
    """Errors that leave a part of the voxels as they should be."""
    metal = values.fraction(HIGHEST_HU + 1, -LOWEST)
    if metal > METAL_FRACTION:
        return (
            "hu_too_high",
            f"{100 * metal:.1f} % of the voxels are above {HIGHEST_HU} HU, up to "
            f"{values.maximum:g}",
        )
    twice, low = _peak(rest, -2124, -1924), rest.fraction(-2600, -1300)
    if twice > SHIFTED_FRACTION and twice > 0.6 * low:
        return "hu_mixed", f"{100 * twice:.1f} % of the voxels lie near -2024, others near -1000"
    if rest.fraction(LOWEST, BELOW_AIR_HU) > BELOW_AIR_FRACTION:
        below = 100 * rest.fraction(LOWEST, BELOW_AIR_HU)
        return "hu_too_low", f"{below:.1f} % of the voxels are below {BELOW_AIR_HU} HU"
    stored, below = _peak(rest, 924, 1124), rest.fraction(700, 900)
    if stored > SHIFTED_FRACTION and stored > 2 * below:
        return "hu_mixed", f"{100 * stored:.1f} % of the voxels lie near 1024, others near 0"
    return _spike(values, rest)


def _peak(rest: ValueStatistics, low: int, high: int) -> float:
    """Fraction of the voxels between two values, without the most frequent integer."""
    inside = rest.histogram[low - LOWEST : high + 1 - LOWEST]
    return float(inside.sum() - inside.max()) / max(1, int(rest.histogram.sum()))


def _spike(values: ValueStatistics, rest: ValueStatistics) -> Remark | None:
    """One value above air that many voxels share: a background, or a cut."""
    begin = -900 - LOWEST
    place = begin + int(rest.histogram[begin:].argmax())
    share = float(rest.histogram[place]) / max(1, int(values.histogram.sum()))
    around = rest.histogram[max(0, place - 40) : place + 41].copy()
    around[min(place, 40)] = 0
    if share < SPIKE_FRACTION or rest.histogram[place] < SPIKE_FACTOR * around.max():
        return None
    value = place + LOWEST
    what = f"{100 * share:.0f} % of the voxels are exactly {value} HU"
    if value in (round(values.minimum), round(values.maximum)):
        side = "lower" if value == round(values.minimum) else "higher"
        return "hu_windowed", f"{what}, and none are {side}"
    return "hu_background", what


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
    thin = rest.histogram[-1500 - LOWEST : -180 - LOWEST].astype(np.float64)
    if thin.sum() < AIR_FRACTION * rest.histogram.sum():
        return None
    peak = np.convolve(thin, np.ones(51), mode="same")
    place = int(peak.argmax()) - 1500
    if peak.max() < AIR_PEAK * thin.sum() or abs(place + 1000) <= AIR_TOLERANCE:
        return None
    return "hu_air_off", f"the air around the body lies near {place}"
