"""Speed in terms that compare machines: samples per second and model FLOP utilisation."""

from __future__ import annotations

import time

import torch


def measured_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of square matrix products on this device: the yardstick of utilisation.

    Measured, because data-sheet peaks exist for few devices and are reached by none.
    """
    size = 4096 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    left @ right  # warm-up: thread pools, kernel selection
    _synchronize(device)
    start, products = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            left @ right
        _synchronize(device)
        products += 4
    return products * 2.0 * size**3 / (time.perf_counter() - start)


def format_duration(seconds: float) -> str:
    """90061 -> '1 d 1 h 1 min', 75 -> '1 min 15 s'."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds_left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h {minutes} min"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds_left} s"
    return f"{seconds_left} s"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
