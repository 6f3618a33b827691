"""From stored intensities to the encoder's, on the device: int16 HU leave the disk unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from colipri.preprocessing.intensities import padding_value, stores_hounsfield

if TYPE_CHECKING:
    from colipri.plans.plans import Configuration, Plans

TISSUE_ABOVE_HU = -700.0  # a token patch whose brightest voxel is below this holds air only


def normalize_on_device(
    image: Tensor, plans: Plans, configuration: Configuration, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Apply nnU-Net's CTNormalization to stored HU; only convert what is stored normalized.

    Clip to [percentile_00_5, percentile_99_5], subtract the mean, divide by the standard deviation,
    with the plan's numbers per channel (for CT a fixed window in which air is 0).

    Args:
        image: (B, C, X, Y, Z), int16 HU or normalized float16, on any device.
        plans: with the numbers per channel.
        configuration: of the plan.
        dtype: of the result.

    Returns:
        (B, C, X, Y, Z) of ``dtype``, a new tensor on the same device.
    """
    if image.dtype != torch.int16:
        return image.to(dtype, copy=True)
    result = image.to(torch.float32)
    for channel in range(image.shape[1]):
        low, high, mean, std = _window(plans, channel)
        result[:, channel].clamp_(low, high).sub_(mean).div_(std)
    return result.to(dtype)


def air_value(plans: Plans, configuration: Configuration) -> float:
    """Normalised intensity of what lies outside the image (0 under the planned CT window)."""
    if not stores_hounsfield(configuration):
        return 0.0
    return _normalised(padding_value(configuration), plans)


def tissue_threshold(plans: Plans, configuration: Configuration) -> float | None:
    """Normalised intensity of -700 HU, or None where intensities have no absolute meaning."""
    return _normalised(TISSUE_ABOVE_HU, plans) if stores_hounsfield(configuration) else None


def _normalised(hounsfield: float, plans: Plans) -> float:
    low, high, mean, std = _window(plans, 0)
    return (min(max(hounsfield, low), high) - mean) / std


def _window(plans: Plans, channel: int) -> tuple[float, float, float, float]:
    numbers = plans.intensities(channel)
    return (
        numbers.percentile_00_5,
        numbers.percentile_99_5,
        numbers.mean,
        max(numbers.std, 1e-8),
    )
