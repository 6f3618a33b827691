"""Sharded weights (FSDP2): every process keeps a part of the towers and of large other parts.

A unit is gathered while it computes, and its gradients are scattered as sums. Each transformer
block is a unit; the rest of a tower (stem, embeddings, norms, its pool) is one more, its root. A
module that can be sharded says so itself: ``sharded_units`` yields its units, the root last, and
``forward_methods`` of a unit names further methods that use its weights as ``forward`` does. The
towers are sharded always, and other parts of the model (pools, decoders and teachers of objectives)
from LARGE_PART parameters on. What is smaller, or used in many ways (temperature, a projection, a
head that says nothing), stays whole in every process, and its gradients take the same way as
without sharding.

Optimiser, clipping and averaged weights work on plain tensors: those of whole parameters, and the
local shard of the others (``local_shard``, which shares its memory with the parameter). So the
optimiser's groups and numbering are the same with and without shards, and a checkpoint, which has
whole tensors (colipri.training.distributed.whole_state), continues with any number of processes and
either form.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from colipri.architectures.model import ColipriModel
from colipri.training.distributed.processes import Processes

TOWERS = ("image_encoder", "text_encoder")
LARGE_PART = 1_000_000  # parameters; an exchange of fewer costs its latency and saves 4 MB
_CAN_IGNORE = "ignored_params" in inspect.signature(fully_shard).parameters  # torch 2.7 and on


def local_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what the optimiser changes, by name: whole parameters, or this process's shards."""
    return {name: getattr(p, "local_shard", p) for name, p in model.named_parameters()}


def replicated(model: nn.Module) -> Iterator[Tensor]:
    """Return the weights that every process has whole."""
    return (tensor for tensor in model.state_dict().values() if not isinstance(tensor, DTensor))


def shard_model(
    model: ColipriModel, device: torch.device, processes: Processes, bf16: bool = False
) -> None:
    """Cut the towers and large other parts into units, and each unit's parameters into shards.

    Args:
        model: alike in all processes, on the meta device; changed in place.
        device: kind of device that will compute.
        processes: two or more.
        bf16: under bf16 autocast; matrices that are rounded to bf16 as they are, are gathered so.
            Shards, sums of gradients and the optimiser stay in float32.
    """
    mesh = dist.device_mesh.init_device_mesh(device.type, (processes.size,))
    for part in sharded_parts(model):
        *blocks, root = part.sharded_units()
        for block in blocks:
            _shard_unit(block, mesh, **_matrices(block, bf16))
        root.register_forward_hook(_own_output)
        _shard_unit(root, mesh, **_scalars(root))  # last: it takes what the blocks leave
    # blocks return views to their own part, which changes none of them in place
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def sharded_parts(model: nn.Module) -> Iterator[Any]:
    """Yield the parts of a model that are sharded."""
    for name, part in model.named_children():
        is_large = sum(p.numel() for p in part.parameters()) >= LARGE_PART
        can_be = hasattr(part, "sharded_units") and (_CAN_IGNORE or not _scalars_of(part))
        if can_be and (is_large or name in TOWERS):
            yield part


def _shard_unit(unit: nn.Module, mesh: Any, **options: Any) -> None:
    _sum_gradients(fully_shard(unit, mesh=mesh, reshard_after_forward=True, **options))
    for method in getattr(unit, "forward_methods", ()):
        register_fsdp_forward_method(unit, method)


def _own_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Copy what a part returns, if it is a view of something else.

    A view that an objective changes in place would lose the hook that gathers the part's weights
    for its backward pass.
    """
    is_view = isinstance(output, Tensor) and output.requires_grad and output._is_view()
    return output.clone() if is_view else output


def _scalars_of(part: nn.Module) -> set[nn.Parameter]:
    return {p for p in part.parameters() if not p.ndim}


def _scalars(root: nn.Module) -> dict[str, Any]:
    """Options of fully_shard for a root with scalars, which cannot be cut and stay whole."""
    scalars = _scalars_of(root)
    return {"ignored_params": scalars} if scalars else {}


def _matrices(block: nn.Module, bf16: bool) -> dict[str, Any]:
    """Options of fully_shard with which a block computes what it would without shards.

    Norms and scales compute in float32 under autocast. In bf16 they would be rounded, so the root
    of the tower gathers them in float32. With LayerScale a block multiplies float32 matrices by its
    scale before they are rounded, so all of it is gathered in float32.
    """
    has_scale = getattr(block, "gamma_1", None) is not None
    if not bf16 or has_scale or not _CAN_IGNORE:
        return {}
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    return {"mp_policy": policy, "ignored_params": {p for p in block.parameters() if p.ndim < 2}}


def _sum_gradients(sharded: Any) -> None:
    """Sums, not averages: losses are divided by the global batch already."""
    if hasattr(sharded, "set_gradient_divide_factor"):
        sharded.set_gradient_divide_factor(1.0)
    else:  # torch before 2.8
        sharded.set_reduce_scatter_divide_factor(1.0)
    if hasattr(sharded, "set_force_sum_reduction_for_comms"):
        sharded.set_force_sum_reduction_for_comms(True)  # the one form that gloo has


def gather_once(model: nn.Module) -> None:
    """Gather every unit for a moment, so that the memory for gathered weights is known.

    Otherwise the first pass makes it, and after a validation as first pass (inference mode) no
    gradient could be computed with it.
    """
    for unit in units_of((model,)):
        unit.unshard()
        unit.reshard()


@contextmanager
def kept_gathered(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, what a pass gathers stays gathered: for many small passes without gradients."""
    units = [unit for unit in units_of(modules) if hasattr(unit, "set_reshard_after_forward")]
    for unit in units:  # torch before 2.8 gathers in every pass
        unit.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def forget_passes(model: nn.Module) -> None:
    """Drop what units note of a forward pass for the backward pass that usually follows it.

    Passes without one (of teachers, of a frozen tower) would add up over a training: torch forgets
    them only in a backward pass of the same part.
    """
    for unit in units_of((model,)):
        state: Any = unit._get_fsdp_state()
        state._comm_ctx.post_forward_order.clear()
        groups = getattr(state, "_fsdp_param_groups", None)
        for group in [state._fsdp_param_group] if groups is None else groups:
            if group is not None:
                group._post_forward_indices.clear()


def units_of(modules: Iterable[nn.Module]) -> Iterator[FSDPModule]:
    """Yield the units of modules: what is gathered at a time."""
    return (unit for one in modules for unit in one.modules() if isinstance(unit, FSDPModule))


def optimize_local_shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser change this process's shards in the place of the sharded parameters.

    Args:
        model: sharded.
        optimizer: of its parameters, before the first step.
    """
    for group in optimizer.param_groups:
        group["params"] = [getattr(p, "local_shard", p) for p in group["params"]]


def clip_gradients(model: nn.Module, limit: float, processes: Processes) -> Tensor:
    """Scale the gradients so that their norm, over all shards, is at most ``limit``.

    Args:
        model: whole, or sharded over the processes.
        limit: largest norm.
        processes: of the training.

    Returns:
        The norm before.
    """
    shards = [p for p in model.parameters() if isinstance(p, DTensor)]
    if not shards:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    for p in shards:  # from the parameter to what the optimiser knows
        local = p.local_shard  # type: ignore[attr-defined]
        local.grad = None if p.grad is None else cast(DTensor, p.grad).to_local()
        p.grad = None
    known = local_parameters(model)
    of_shards = [p.local_shard.grad for p in shards if p.local_shard.grad is not None]  # type: ignore[attr-defined]
    ids = {id(gradient) for gradient in of_shards}
    others = [p.grad for p in known.values() if p.grad is not None and id(p.grad) not in ids]
    squares = processes.sum(_square_norm(of_shards, like=shards[0].to_local()))
    norm = (squares + _square_norm(others, like=squares)).sqrt()
    torch.nn.utils.clip_grads_with_norm_(known.values(), limit, norm)
    return norm


def _square_norm(gradients: list[Tensor], like: Tensor) -> Tensor:
    total = like.new_zeros(())
    for norm in torch._foreach_norm(gradients) if gradients else ():
        total = total + norm.square()
    return total
