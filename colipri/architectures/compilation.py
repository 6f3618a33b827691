"""torch.compile for the image encoder's blocks, where it works; other runs continue without it.

The blocks are compiled one by one and in place: they are the same program, so it is compiled once,
and the names in the state dict stay what they are.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from colipri.architectures.model import ColipriModel
from colipri.architectures.rope import grid_positions

logger = logging.getLogger(__name__)

_PROBE_GRIDS = ((1, 2, 3), (2, 2, 2))  # two lengths: what follows is a graph for any length


def compile_blocks(model: ColipriModel, setting: bool | str, autocast: bool = False) -> bool:
    """Compile the blocks of the image encoder and try them out, forward and backward.

    Args:
        model: on its device.
        setting: False for not at all, True for torch's default backend, or a backend's name.
        autocast: True if training runs under bf16 autocast.

    Returns:
        True if they are compiled now. A failure is logged as a warning, with its first line.
    """
    if not setting:
        return False
    blocks = list(model.image_encoder.eva.blocks)
    options: dict[str, Any] = {} if setting is True else {"backend": setting}
    try:
        for block in blocks:
            block.compile(dynamic=True, **options)
        _probe(model, autocast)
    except Exception as error:  # noqa: BLE001 (compilers fail in every way there is)
        for block in blocks:
            block._compiled_call_impl = None
        torch.compiler.reset()
        first = str(error).strip().splitlines() or [""]
        logger.warning(
            "torch.compile does not work here (%s: %s); training continues without it",
            type(error).__name__,
            first[0][:200],
        )
        return False
    finally:
        model.zero_grad(set_to_none=True)
    logger.info("The image encoder's blocks are compiled")
    return True


def _probe(model: ColipriModel, autocast: bool) -> None:
    """Make two small passes through all blocks, and leave the random state unchanged."""
    device = model.logit_scale.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autocast(device.type, torch.bfloat16, autocast):
        for grid in _PROBE_GRIDS:
            positions = grid_positions(grid, device)
            shape = (2, len(positions), model.image_encoder.embed_dim)
            tokens = torch.randn(shape, device=device, requires_grad=True)
            model.image_encoder.encode(tokens, positions).float().sum().backward()
