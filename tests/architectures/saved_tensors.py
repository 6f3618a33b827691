"""Counting what autograd keeps for the backward pass: activation memory, exact, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def count_saved_bytes(function: Callable[[], object], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that ``function`` keeps for its backward pass.

    Each storage counts once and whole, however many views of it are kept, because that is what
    stays allocated. What lives anyway should be excluded: parameters (also kept by linear layers)
    and inputs. Copies of weights that autocast makes are counted; they do not grow with the batch,
    so differences between two sizes are free of them.

    Args:
        function: runs a forward pass; what it returns is kept until the count is done.
        exclude: tensors that do not count.
    """
    known = {_storage(tensor) for tensor in exclude}
    kept: dict[int, Tensor] = {}  # holds references, so that no identity is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in known:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def _storage(tensor: Tensor) -> int:
    """Identity of a storage; unlike its address, fake tensors have one as well."""
    return tensor.untyped_storage()._cdata
