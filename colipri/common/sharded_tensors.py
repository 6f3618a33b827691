"""Parts of tensors that several processes share: rows of a whole tensor, by process.

A sharded weight is a ``torch.distributed.tensor.DTensor`` that is cut along its first dimension.
These functions know it by its methods, because importing its class takes time that a program with
one process does not need to spend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """True for a tensor of which every process holds some rows."""
    return hasattr(tensor, "full_tensor")


def local_part(tensor: Tensor) -> Tensor:
    """Return the rows of a sharded tensor that are here (the same memory), or a whole tensor."""
    sharded: Any = tensor
    part: Tensor = sharded.to_local() if is_sharded(tensor) else tensor
    return part


def gathered(tensor: Tensor) -> Tensor:
    """Return a whole tensor; all processes must call this for a sharded one."""
    sharded: Any = tensor
    whole: Tensor = sharded.full_tensor() if is_sharded(tensor) else tensor
    return whole


def rows_of(tensor: Tensor, rank: int, size: int) -> Tensor:
    """Return the rows of a whole tensor that belong to a process.

    Args:
        tensor: of at least one dimension.
        rank: of the process.
        size: how many processes there are.
    """
    parts = tensor.chunk(size)
    return parts[rank] if rank < len(parts) else tensor[:0]


def own_rows(tensor: Tensor, like: Tensor) -> Tensor:
    """Return what this process keeps of a whole tensor (the same memory), without the others.

    Args:
        tensor: whole, or sharded already.
        like: a weight; if it is sharded, ``tensor`` is cut in the same way.
    """
    if is_sharded(tensor):
        return local_part(tensor)
    if not is_sharded(like) or tensor.ndim == 0:
        return tensor
    mesh: Any = like.device_mesh  # type: ignore[attr-defined]
    return rows_of(tensor, mesh.get_local_rank(), mesh.size())


@torch.no_grad()
def load_state(module: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """``module.load_state_dict`` for whole tensors and modules that may be sharded.

    Args:
        module: takes the weights; of a sharded one, every process takes its rows.
        state: name -> whole tensor.
        strict: all names must be known, and none may be missing.
    """
    wanted = module.state_dict()
    sharded = {name for name, tensor in wanted.items() if is_sharded(tensor) and name in state}
    for name in sharded:
        if state[name].shape != wanted[name].shape:
            raise RuntimeError(
                f"size mismatch for {name}: {tuple(state[name].shape)} instead of "
                f"{tuple(wanted[name].shape)}"
            )
        local_part(wanted[name]).copy_(own_rows(state[name], wanted[name]))
    others = {name: wanted[name] if name in sharded else state[name] for name in state}
    module.load_state_dict(others, strict=strict)
