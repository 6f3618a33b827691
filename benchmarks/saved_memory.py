"""What a step costs, whatever else runs on the machine: kept activations, and processor time."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class _Kept:
    """A tensor that autograd keeps; it goes away when its part of the graph does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time of all threads on a CPU, which others cannot lengthen; else the time of day.

    Set OMP_WAIT_POLICY=passive, or threads that wait for each other count as well.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


def peak_saved_bytes(function: Callable[[], object], exclude: Iterable[Tensor] = ()) -> int:
    """The most bytes of storages that ``function``, backward included, keeps for backward at once.

    Exact on any device, and free of what allocators and libraries add. Each storage counts once
    and whole, however many views of it are kept.

    Args:
        function: forward and backward passes.
        exclude: tensors that live anyway: parameters and inputs.
    """
    known = {_storage(tensor) for tensor in exclude}
    users: Counter[int] = Counter()
    held = peak = 0

    def release(storage: int, size: int) -> None:
        nonlocal held
        users[storage] -= 1
        if not users[storage]:
            held -= size

    def pack(tensor: Tensor) -> _Kept:
        nonlocal held, peak
        kept, storage = _Kept(tensor), _storage(tensor)
        if storage not in known:
            size = tensor.untyped_storage().nbytes()
            held += 0 if users[storage] else size
            users[storage] += 1
            weakref.finalize(kept, release, storage, size)
            peak = max(peak, held)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        function()
    return peak


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
