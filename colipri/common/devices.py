"""Where to compute: the name on the command line becomes a device that exists."""

from __future__ import annotations

import logging

import torch

from colipri.common.errors import ColipriError

logger = logging.getLogger(__name__)


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name; "auto" is the best that there is, and is said.

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
