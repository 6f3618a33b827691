"""A sharded model is built so that no process but the first, and no device, ever holds all of it.

The first process builds the model on the CPU, with the random numbers and the pretrained weights
that a run without shards has. The others build it on the meta device, where tensors have a shape
and no numbers. It is cut into shards while all is on the meta device; then memory for the
shards is allocated, and they are filled from the first process, one tensor at a time and from CPU
to CPU, as bytes: the weights are those of a run without shards, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from colipri.architectures.model import ColipriModel
from colipri.common.errors import ColipriError
from colipri.common.sharded_tensors import is_sharded, local_part, rows_of
from colipri.training.distributed.processes import Processes
from colipri.training.distributed.sharding import gather_once, shard_model

Described = dict[str, tuple[tuple[int, ...], torch.dtype]]


def build_in_shards(
    build: Callable[[], ColipriModel],
    device: torch.device,
    processes: Processes,
    bf16: bool = False,
) -> ColipriModel:
    """Build a model whose large parts are shared by the processes.

    Args:
        build: returns the model, on the CPU or, where that is torch's default, on the meta device.
        device: of this process.
        processes: two or more.
        bf16: see :func:`shard_model`.

    Raises:
        ColipriError: ``build`` needs numbers of weights, or makes another model on the meta device.
    """
    model = build() if processes.is_main else _build_without_numbers(build)
    source = dict(_tensors(model))
    described: Described = processes.broadcast_object(
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in source.items()}
    )
    _require_same(source, described)
    _onto_meta(model, described)
    shard_model(model, device, processes, bf16)
    model.to_empty(device=device)
    _fill(model, source if processes.is_main else {}, described, processes)
    for p in model.parameters():
        if is_sharded(p):
            p.local_shard = nn.Parameter(local_part(p.detach()), p.requires_grad)  # type: ignore[attr-defined]
    gather_once(model)
    return model


def _build_without_numbers(build: Callable[[], ColipriModel]) -> ColipriModel:
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError) as error:  # what torch raises without numbers
        raise ColipriError(
            "with --parallel fsdp all processes but the first build the model without its numbers "
            f"(torch's meta device), and building it needs some: {str(error).splitlines()[0]}; "
            "change build_model, or train with --parallel ddp"
        ) from error


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors by name: parameters, buffers, and plain attributes of modules.

    Buffers that no checkpoint holds, and attributes, are set where a module is built, so they have
    numbers in the first process only.
    """
    yield from model.named_parameters()
    yield from model.named_buffers()
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{name}" if prefix else name, value


def _require_same(found: Mapping[str, Tensor], described: Described) -> None:
    here = {name: tuple(tensor.shape) for name, tensor in found.items()}
    there = {name: shape for name, (shape, _) in described.items()}
    names = here.keys() | there.keys()
    different = sorted(name for name in names if here.get(name) != there.get(name))
    if different:
        raise ColipriError(
            "built without its numbers (torch's meta device), the model is another one than in the "
            f"first process: {len(different)} tensors differ, first {different[0]} "
            f"({here.get(different[0])} and {there.get(different[0])}); train with --parallel ddp"
        )


def _onto_meta(model: nn.Module, described: Described) -> None:
    """Take the numbers out of the parameters; what is tied stays tied."""
    made: dict[int, nn.Parameter] = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) not in made:
                dtype = described[names[id(p)]][1]  # a pretrained part may come in another one
                empty = torch.empty(p.shape, dtype=dtype, device="meta")
                made[id(p)] = nn.Parameter(empty, p.requires_grad)
            module.register_parameter(name, made[id(p)])


def _fill(
    model: nn.Module, source: Mapping[str, Tensor], described: Described, processes: Processes
) -> None:
    """Copy the first process's tensors into a model that has memory and no numbers.

    Args:
        model: sharded, on its device.
        source: the first process's tensors by name; elsewhere empty.
        described: their shapes and types.
        processes: that share the model.
    """
    targets = dict(_tensors(model))
    with torch.no_grad():
        for name, (shape, dtype) in described.items():
            whole = source.get(name)
            target = targets[name]
            if is_sharded(target):
                part = local_part(target)
                part.copy_(_scattered(whole, part.shape, dtype, processes))
                continue
            numbers = torch.empty(shape, dtype=dtype) if whole is None else whole.detach().cpu()
            numbers = numbers.contiguous()
            processes.broadcast([_bytes(numbers)])
            if target.is_meta:  # an attribute, which Module.to_empty does not know
                prefix, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(prefix), attribute, numbers)
            else:
                target.copy_(numbers)


def _scattered(
    whole: Tensor | None, shape: torch.Size, dtype: torch.dtype, processes: Processes
) -> Tensor:
    """Return this process's rows of the first process's tensor, on the CPU.

    Args:
        whole: None in the others.
        shape: of the rows here.
        dtype: of the tensor.
        processes: that share it.
    """
    if whole is None:
        rows = torch.empty(shape, dtype=dtype)
        if rows.numel():
            dist.recv(_bytes(rows), 0)
        return rows
    whole = whole.detach().cpu().contiguous()
    for rank in range(1, processes.size):
        rows = rows_of(whole, rank, processes.size)
        if rows.numel():
            dist.send(_bytes(rows), rank)
    return rows_of(whole, 0, processes.size)


def _bytes(tensor: Tensor) -> Tensor:
    """View a contiguous tensor as bytes: gloo does not know all types of numbers."""
    view: Any = tensor.view(-1)
    return view.view(torch.uint8)
