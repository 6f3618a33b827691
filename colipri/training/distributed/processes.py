"""Several processes that train one model: who this one is, and what they exchange.

Gradients are summed by one explicit all-reduce after the backward passes of a step, not by torch's
DistributedDataParallel: a cached contrastive batch runs forward and backward many times in a step,
each with a part of the batch, and the wrapper would exchange the gradients of each pass (or need to
be told which one is the last), find parameters unused in passes that hold sentences only, and
average where the objectives are already divided by the global batch. A sum of what all processes
computed is the gradient of the global batch, whatever each one had to do.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from colipri.common.errors import ColipriError

# Long enough for a checkpoint on a slow disk; a process that ends is noticed at once, not by this.
TIMEOUT = timedelta(minutes=30)
BUCKET_NUMBERS = 1 << 25  # summed together: few messages, and little memory beside the gradients
_LOST = re.compile(r"gloo|NCCL|ProcessGroup|TCPStore|Connection (closed|reset)|Broken pipe")


class PeerLost(ColipriError):
    """Another process of this training has ended."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training.

    Attributes:
        rank: number of this process; 0 writes the files.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> Processes:
        """Those that :func:`join_processes` brought together; otherwise this one alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """True in the process that writes logs, checkpoints and pictures."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up ``tensor`` of all processes, in place; all get the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """Return the largest ``number`` of all processes."""
        if self.size == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def gather(self, entries: list[Any]) -> list[Any]:
        """Return the items of all processes, in the order in which they were assigned in turn."""
        if self.size == 1:
            return entries
        held: list[list[Any]] = [[] for _ in range(self.size)]
        dist.all_gather_object(held, entries)
        longest = max(len(part) for part in held)
        return [part[i] for i in range(longest) for part in held if i < len(part)]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes; a parameter that none has one for keeps None.

        Gradients of sharded parameters are summed in the backward pass already.
        """
        trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
        if self.size == 1 or not trained:
            return
        found = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)
        dist.all_reduce(found)
        used = [p for p, count in zip(trained, found.tolist(), strict=True) if count]
        for bucket in _buckets(used):
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self.sum(torch.cat([part.reshape(-1) for part in parts]))
            sums = flat.split([p.numel() for p in bucket])
            for p, summed in zip(bucket, sums, strict=True):
                if p.grad is None:
                    p.grad = summed.view_as(p).clone()
                else:
                    p.grad.copy_(summed.view_as(p))

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Take process 0's numbers everywhere, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def broadcast_object(self, content: Any) -> Any:
        """Return process 0's plain data everywhere."""
        shared = [content]
        if self.size > 1:
            dist.broadcast_object_list(shared, 0)
        return shared[0]

    @torch.no_grad()
    def require_equal(self, tensors: Sequence[Tensor]) -> None:
        """Check that all processes hold the same numbers.

        Raises:
            ColipriError: they drifted apart, or were never the same.
        """
        if self.size == 1 or not tensors:
            return
        sums = torch.stack([tensor.double().sum() for tensor in tensors])
        sums = torch.stack([sums, -sums])
        dist.all_reduce(sums, dist.ReduceOp.MAX)  # the largest, and minus the smallest
        different = int((sums[0] != -sums[1]).sum())  # NaN differs from itself
        if different:
            raise ColipriError(
                f"the weights of the {self.size} processes differ in {different} of {len(tensors)} "
                "tensors; all need the same hardware and packages; continue from the last "
                "checkpoint with --c"
            )


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type, up to BUCKET_NUMBERS together."""
    bucket: list[nn.Parameter] = []
    for p in parameters:
        full = sum(q.numel() for q in bucket) + p.numel() > BUCKET_NUMBERS
        if bucket and (full or p.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def join_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """Meet the other processes that torchrun, Slurm or ``-num_gpus`` started.

    Nothing happens unless the environment names RANK and WORLD_SIZE.

    Args:
        device: kind of device that was asked for.

    Returns:
        The processes, and this one's own device (LOCAL_RANK says which).

    Raises:
        ColipriError: the environment is incomplete, or the others do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ or size == 1:
        return Processes(), device
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ColipriError(
            f"RANK and WORLD_SIZE are set and {' and '.join(missing)} not: start with torchrun, or "
            "set all four (or none, for one process)"
        )
    if device.type == "mps":
        raise ColipriError("several processes need -device cuda or cpu")
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ColipriError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        # messages between CPUs have their own way, so that a lost process is noticed there as well
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ColipriError(
            f"the {size} processes did not meet at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: {str(error).splitlines()[0]}"
        ) from error
    processes = Processes.present()
    if not processes.is_main:  # the same lines again would say nothing new
        logging.getLogger("colipri").setLevel(logging.CRITICAL)
    return processes, device


def leave_processes() -> None:
    """Leave the group at the end of a successful training."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def lost_peers(processes: Processes) -> Iterator[None]:
    """Inside, a broken connection to another process becomes :class:`PeerLost`."""
    try:
        yield
    except RuntimeError as error:
        if processes.size == 1 or not _LOST.search(str(error)):
            raise
        raise PeerLost(
            f"another of the {processes.size} training processes has ended, so this training "
            "stops; the last checkpoint is complete: continue with --c"
        ) from error


def claim_error_report(if_unknown: bool) -> bool:
    """Return True if no other process has reported a problem yet: one line is enough.

    Args:
        if_unknown: the answer where the process that keeps the count has ended already.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        return int(store.add("colipri_problems", 1)) == 1
    except (RuntimeError, ValueError):
        return if_unknown
