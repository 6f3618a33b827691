"""Intensities: a fixed window for CT, nnU-Net's z-score for everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colipri.plans.plans import CT_SCHEME

# What the COLIPRI paper's model clips to; wider than nnU-Net's percentiles, because lung, soft
# tissue, contrast and bone are all reported on.
WINDOW_HU = (-1000.0, 1000.0)
# Air becomes 0, so that zero padding, here and in nnU-Net, means air; 500 HU per unit spreads the
# window over 4 units, about one standard deviation of a body.
CT_NUMBERS = {
    "mean": -1000.0,
    "std": 500.0,
    "percentile_00_5": WINDOW_HU[0],
    "percentile_99_5": WINDOW_HU[1],
}


@dataclass(frozen=True)
class ChannelPlan:
    """How channels are stored and normalised.

    Attributes:
        intensities: per channel the numbers of nnU-Net's normalisation classes.
        configuration_entries: normalization_schemes, use_mask_for_norm, resampling, storage_dtype.
        reason: one line.
    """

    intensities: dict[str, dict[str, float]]
    configuration_entries: dict[str, Any]
    reason: str


def plan_channels(fingerprint: dict[str, Any]) -> ChannelPlan:
    """Decide by the channel names, as nnU-Net does ("CT" in any case is Hounsfield units)."""
    names = fingerprint["channel_names"]
    measured = fingerprint["foreground_intensity_properties_per_channel"]
    is_ct = {number: str(name).casefold() == "ct" for number, name in names.items()}
    all_ct = all(is_ct.values())
    intensities = {
        number: {**measured[number], **(CT_NUMBERS if is_ct[number] else {})} for number in names
    }
    schemes = [CT_SCHEME if is_ct[number] else "ZScoreNormalization" for number in sorted(names)]
    window = "clipped to [-1000, 1000] HU, (HU + 1000) / 500, so that air is 0 here and in nnU-Net"
    if all_ct:
        reason = f"CT: stored as int16 HU (lossless to 1 HU), {window}; normalised on the device"
    elif any(is_ct.values()):
        reason = f"CT: {window}; other channels: nnU-Net's z-score per case; stored as float16"
    else:
        reason = "not CT: nnU-Net's z-score per case, stored as float16"
    return ChannelPlan(
        intensities,
        {
            "normalization_schemes": schemes,
            "use_mask_for_norm": [False] * len(names),
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {
                "is_seg": False,
                "order": 3,
                "order_z": 0,
                "force_separate_z": None,
            },
            "storage_dtype": "int16" if all_ct else "float16",
        },
        reason,
    )
