"""Whole tensors of a sharded model and its optimiser: what checkpoints hold.

One tensor is gathered at a time, and only the first process keeps it, on the CPU; the others hold
nothing beyond their shards. What is loaded is read by every process from the same (mapped) file,
and each copies its own rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from colipri.common.sharded_tensors import is_sharded, own_rows
from colipri.training.distributed.processes import Processes


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with whole tensors; all processes must call this.

    Returns:
        Name -> tensor. Of a sharded model the first process gets copies on the CPU, and the others
        nothing.
    """
    state = model.state_dict()
    if not any(map(is_sharded, state.values())):
        return dict(state)
    return _kept_by_the_first({name: (tensor, tensor) for name, tensor in state.items()})


def _kept_by_the_first(parts: Mapping[Any, tuple[Any, Tensor]]) -> dict[Any, Any]:
    """Gather one tensor after the other.

    Args:
        parts: key -> what this process has, and the parameter that it belongs to.
    """
    is_main = Processes.present().is_main
    kept = {}
    for key, (local, like) in parts.items():
        whole = whole_tensor(local, like) if isinstance(local, Tensor) else local
        if is_main:
            kept[key] = whole.detach().to("cpu", copy=True) if isinstance(whole, Tensor) else whole
    return kept


def whole_tensor(local: Tensor, like: Tensor) -> Tensor:
    """Return the whole tensor of which ``local`` is a part; all processes must call this.

    Args:
        local: of this process; whole already where ``like`` is, and where it is a scalar.
        like: the parameter that it belongs to.
    """
    if isinstance(local, DTensor):
        return local.full_tensor()
    if not isinstance(like, DTensor) or local.ndim == 0:
        return local
    mesh, placements = like.device_mesh, like.placements
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=shape, stride=stride
    ).full_tensor()


def whole_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's state dict with whole tensors; all processes must call this.

    Of a sharded model the first process gets copies of the tensors on the CPU, the others none.
    """
    content = optimizer.state_dict()
    if not any(map(is_sharded, model.parameters())):
        return content
    used = _parameters_by_number(model, optimizer)
    gathered = _kept_by_the_first(
        {
            (number, key): (value, used[number])
            for number, state in content["state"].items()
            for key, value in state.items()
        }
    )
    content["state"] = {number: {} for number, _ in gathered}
    for (number, key), value in gathered.items():
        content["state"][number][key] = value
    return content


def load_whole_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, content: Mapping[str, Any]
) -> None:
    """Load what :func:`whole_optimizer_state` gave; moments of shards never reach the device whole.

    Args:
        model: whole or sharded.
        optimizer: of the model.
        content: with whole tensors, on the CPU.
    """
    if not any(map(is_sharded, model.parameters())):
        optimizer.load_state_dict(dict(content))
        return
    used = _parameters_by_number(model, optimizer)
    state = {
        number: {
            key: own_rows(value, used[int(number)]).clone() if isinstance(value, Tensor) else value
            for key, value in kept.items()
        }
        for number, kept in content["state"].items()
    }
    optimizer.load_state_dict({**content, "state": state})


def _parameters_by_number(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[torch.nn.Parameter]:
    """Return the model's parameters as the optimiser numbers them."""
    like = {id(getattr(p, "local_shard", p)): p for p in model.parameters()}
    return [like[id(p)] for group in optimizer.param_groups for p in group["params"]]
