"""Where to compute: names on the command line become a device that exists, and its memory."""

from __future__ import annotations

import logging
import math

import torch

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)

_GIB = 2**30
CPU_MEMORY_TARGET = 4.0  # GiB; planners choose the model for small machines below 6


def memory_target(wanted: str | float) -> float:
    """Resolve ``-gpu_memory_target``: GB (GiB) of memory to plan for.

    The plan holds the number, so it stays the same wherever it is read.

    Args:
        wanted: A number; "cpu" for a machine without a GPU; "auto" for the memory of the smallest
            GPU here, rounded down, or "cpu" where there is none.

    Raises:
        ColipriError: none of these.
    """
    if wanted == "auto":
        found = _accelerator_memory()
        if found is None:
            logger.info("Planning for a CPU (%g GB): there is no GPU here", CPU_MEMORY_TARGET)
            return CPU_MEMORY_TARGET
        logger.info("Planning for the GPU here: %d GB", found)
        return float(found)
    if wanted == "cpu":
        return CPU_MEMORY_TARGET
    try:
        target = float(wanted)
    except ValueError:
        target = math.nan
    if not 1 <= target < math.inf:
        raise ColipriError(
            f"-gpu_memory_target must be at least 1 GB, or auto, or cpu, not {wanted}"
        )
    return target


def has_accelerator() -> bool:
    """True if there is a GPU (CUDA or MPS) here."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def computes_bf16(device: torch.device) -> bool:
    """True if the device multiplies matrices in bf16 natively; others only emulate it, slowly.

    CPUs: AVX512_BF16 (AMD Zen 4, Intel Cooper Lake) or AMX (Intel Sapphire Rapids), and newer ones.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # private names: an older or newer torch that lacks them keeps fp32
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def _accelerator_memory() -> int | None:
    """Whole GiB of the smallest GPU; None without one."""
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        return min(torch.cuda.get_device_properties(i).total_memory for i in devices) // _GIB
    if torch.backends.mps.is_available():
        return torch.mps.recommended_max_memory() // _GIB
    return None


def use_bf16(precision: str, device: torch.device) -> bool:
    """Return True to compute under bf16 autocast.

    Args:
        precision: "fp32", "bf16", or "auto" for bf16 on GPUs that have it.
        device: where the model is.

    Raises:
        ColipriError: bf16 was asked for on a GPU that does not have it.
    """
    if precision != "auto":
        if precision == "bf16" and device.type == "cuda" and not computes_bf16(device):
            raise ColipriError(
                f"{torch.cuda.get_device_name(device)} does not compute in bf16 (GPUs from Ampere "
                "on do); use -precision fp32 or auto"
            )
        if precision == "bf16" and device.type == "cpu" and not computes_bf16(device):
            logger.warning("This CPU has no bf16 instructions: -precision fp32 is faster")
        return precision == "bf16"
    return device.type == "cuda" and computes_bf16(device)


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; "auto" takes the best one and logs it.

    Raises:
        ColipriError: it is not available on this machine.
    """
    if name == "auto":
        best = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else best
        logger.info("Computing on %s", name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ColipriError(f"there is no device '{name}'; use cuda, cpu or mps") from error
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not available.get(device.type, False):
        raise ColipriError(f"no {device.type} device is available here; use -device cpu")
    return device
