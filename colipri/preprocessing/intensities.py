"""Stored intensities: int16 HU for CT, normalised float16 for everything else.

CT keeps its Hounsfield units: int16 is lossless to 1 HU (noise is 10 HU and more), compresses 2.7
times better than float32, and leaves windowing to the device, where it can be augmented. Other
modalities have no absolute scale, so they are normalised here by nnU-Net's class for the channel,
once, on the whole case. float16 is enough, because a z-score rarely leaves [-10, 10], where its
step is at most 0.008 standard deviations. A data set that mixes CT with other channels is stored as
normalised float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.preprocessing.normalization import default_normalization_schemes

from colipri.common.errors import ColipriError
from colipri.plans.plans import CT_SCHEME

if TYPE_CHECKING:
    from colipri.plans.plans import Configuration, Plans

AIR_HU = -1024  # padding, including paddings such as -2000 and -3024, becomes this
MAXIMUM_HU = 3071  # 12 bits above AIR_HU: the range of nearly all scanners; metal saturates


def stores_hounsfield(configuration: Configuration) -> bool:
    """True if cases are stored in HU and normalised on the device.

    Raises:
        ColipriError: the plan contradicts itself.
    """
    schemes = configuration.normalization_schemes
    storage = configuration.storage_dtype
    if storage == "int16":
        if any(scheme != CT_SCHEME for scheme in schemes):
            raise ColipriError(
                f"the plan stores int16, which is for Hounsfield units, but normalises with "
                f"{schemes}; set storage_dtype to float16"
            )
        return True
    if storage == "float16":
        return False
    raise ColipriError(f"the plan's storage_dtype is '{storage}'; it must be int16 or float16")


def ct_channel_of(configuration: Configuration) -> int | None:
    """The first channel that the plan treats as CT, or None."""
    schemes = configuration.normalization_schemes
    return schemes.index(CT_SCHEME) if CT_SCHEME in schemes else None


def hounsfield_range(configuration: Configuration) -> tuple[int, int]:
    """Lowest and highest HU that are kept, before and after resampling.

    A plan's optional "hounsfield_range" replaces the scanners' range, for encoders trained
    elsewhere (colipri.experiment_planning.presets).

    Raises:
        ColipriError: the range does not fit int16.
    """
    low, high = configuration.hounsfield_range or (AIR_HU, MAXIMUM_HU)
    if not -(2**15) <= low < high < 2**15:
        raise ColipriError(f"the plan's hounsfield_range [{low}, {high}] does not fit int16")
    return int(low), int(high)


def padding_value(configuration: Configuration) -> float:
    """The value outside the image, in stored units: air for CT, 0 after normalisation.

    nnU-Net pads with 0; for a CT channel within the plan's window this is air as well.
    """
    return float(hounsfield_range(configuration)[0]) if stores_hounsfield(configuration) else 0.0


def clip_hounsfield(
    array: np.ndarray, bounds: tuple[int, int] = (AIR_HU, MAXIMUM_HU)
) -> np.ndarray:
    """Clip HU to the stored range; paddings far below air become air."""
    return np.clip(array, *bounds)


def to_stored_hounsfield(
    array: np.ndarray, bounds: tuple[int, int] = (AIR_HU, MAXIMUM_HU)
) -> np.ndarray:
    """Round HU to int16 (clipped again, because interpolation overshoots)."""
    return np.rint(clip_hounsfield(array, bounds)).astype(np.int16)


def normalise(
    array: np.ndarray, mask: np.ndarray, plans: Plans, configuration: Configuration
) -> np.ndarray:
    """Apply nnU-Net's normalisation class of each channel, on the cropped, original grid.

    Args:
        array: float32 (C, A0, A1, A2).
        mask: bool (A0, A1, A2), the body; used for channels with use_mask_for_norm.
        plans: intensity properties per channel.
        configuration: normalisation scheme per channel.
    """
    outside = np.where(mask, 0, -1).astype(np.int8)
    result = np.empty_like(array, dtype=np.float32)
    schemes = configuration.normalization_schemes
    masked = configuration.use_mask_for_norm
    properties = plans.foreground_intensity_properties_per_channel
    for channel, (scheme, use_mask) in enumerate(zip(schemes, masked, strict=True)):
        normaliser = _find_scheme(scheme)(
            use_mask_for_norm=bool(use_mask),
            intensityproperties=properties[str(channel)].to_dict()
            if str(channel) in properties
            else {},
        )
        result[channel] = normaliser.run(array[channel].copy(), outside)
    return result


def to_stored_normalised(array: np.ndarray) -> np.ndarray:
    """Convert to float16; values that do not fit (broken data) saturate instead of overflowing."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(array, -limit, limit).astype(np.float16)


def _find_scheme(name: str) -> type:

    found = getattr(default_normalization_schemes, name, None)
    if not isinstance(found, type):
        raise ColipriError(
            f"the plan names the normalisation '{name}', which nnunetv2 does not have"
        )
    return found
