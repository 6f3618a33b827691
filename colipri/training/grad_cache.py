"""A contrastive batch of any size with the memory of one micro batch, and exact gradients.

GradCache (Gao et al., RepL4NLP 2021, arXiv 2101.06983):

1. ``forward_no_grad``: encode every micro batch without a graph;
2. ``build_cache``: compute the loss once on all embeddings, which gives its gradient for each
   embedding and for the temperature;
3. ``forward_backward``: encode every micro batch again, with the same random numbers, and send its
   part of that gradient through the encoders.

The loss knows nothing of micro batches. Summing the losses of micro batches instead (gradient
accumulation) would see fewer negatives and count the temperature's gradient once per micro batch.

Micro batches need not be alike: some hold images and captions, others sentences, others images
without a text. Losses that need no other case (report generation, masked image modelling) are added
in step 3, where the micro batch is encoded with a graph anyway.

Several processes share the micro batches of one batch: each encodes its own, all embeddings are
exchanged, every process computes the same loss and sends the gradient of its own rows through its
own graphs. The losses and gradients of all processes add up to those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from colipri.training.distributed.processes import Processes

MicroBatch = TypeVar("MicroBatch")
Embeddings = dict[str, Tensor]
Encode = Callable[[MicroBatch], Embeddings]
EncodeWithLoss = Callable[[MicroBatch], tuple[Embeddings, Tensor | None]]
Loss = Callable[[Embeddings], Tensor]
# Per micro batch of this process and name: its rows among all embeddings; None: it is padding.
Places = list[dict[str, slice] | None]


# ---------------------------------------------------------------------- random numbers, replayed


@dataclass(frozen=True)
class RandomState:
    """The state of torch's generators (CPU, and the accelerator that the model runs on)."""

    cpu: Tensor
    accelerator: Tensor | None
    device: torch.device

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Remember the current state."""
        accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), accelerator, device)

    def restore(self) -> None:
        """Make the remembered state the current one."""
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.cuda.set_rng_state(self.accelerator, self.device)

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Run a block from the remembered state, then restore the state before it."""
        before = RandomState.capture(self.device)
        self.restore()
        try:
            yield
        finally:
            before.restore()


# ---------------------------------------------------------------------- embeddings, exchanged


class Exchange(Protocol):
    """How the embeddings of all micro batches come together."""

    @property
    def is_owner(self) -> bool:
        """True in the one process that adds the batch's loss, and the gradients of the parameters
        that the loss itself uses (temperature, bias), to the sum over processes."""
        ...

    def all_gather(self, parts: Sequence[Embeddings]) -> tuple[Embeddings, Places]:
        """Return all embeddings by name, and which rows belong to each part."""
        ...


class OneProcess:
    """All micro batches are in this process."""

    is_owner = True

    def all_gather(self, parts: Sequence[Embeddings]) -> tuple[Embeddings, Places]:
        """Concatenate by name; a part may lack some names."""
        names = dict.fromkeys(name for part in parts for name in part)
        starts = dict.fromkeys(names, 0)
        places: Places = []
        for part in parts:
            place = {}
            for name, rows in part.items():
                place[name] = slice(starts[name], starts[name] + len(rows))
                starts[name] += len(rows)
            places.append(place)
        whole = {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
        return whole, places


@dataclass(frozen=True)
class SharedEmbeddings:
    """Embeddings of a batch that several processes encode.

    All processes add up arrays of the size of the global batch in which the rows of the others are
    zero. That gives every row exactly, however many rows each process has (even none), and
    embeddings are small: 512 cases of 768 dimensions are 1.5 MB.

    Attributes:
        processes: of the training.
        rows: name -> rows of the global batch.
        places: per micro batch of this process and name its rows; None for padding.
        width: E, dimensions of an embedding.
        device, dtype: of the embeddings.
    """

    processes: Processes
    rows: dict[str, int]
    places: Places
    width: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def is_owner(self) -> bool:
        """True in process 0: the batch's loss is the same in all processes."""
        return self.processes.rank == 0

    def all_gather(self, parts: Sequence[Embeddings]) -> tuple[Embeddings, Places]:
        """Return (rows, E) embeddings of the global batch by name, and this process's places."""
        whole = {
            name: torch.zeros(rows, self.width, device=self.device, dtype=self.dtype)
            for name, rows in self.rows.items()
        }
        for part, place in zip(parts, self.places, strict=True):
            for name, embedded in part.items():
                if place is not None:
                    whole[name][place[name]] = embedded
        for embeddings in whole.values():
            self.processes.sum(embeddings)
        return whole, self.places


# ---------------------------------------------------------------------- GradCache


@dataclass
class _Encoded(Generic[MicroBatch]):
    """A micro batch after the first pass: its graph, or what is needed to encode it again."""

    micro_batch: MicroBatch
    embeddings: Embeddings
    graph: tuple[Embeddings, Tensor | None] | None = None
    state: RandomState | None = None


def grad_cache_backward(
    micro_batches: Sequence[MicroBatch],
    encode: Encode[MicroBatch],
    loss_of: Loss,
    device: torch.device,
    encode_with_loss: EncodeWithLoss[MicroBatch] | None = None,
    one_pass: bool = False,
    exchange: Exchange | None = None,
) -> Tensor:
    """Add the gradient of ``loss_of(all embeddings)`` to the parameters, part by part.

    Args:
        micro_batches: whatever ``encode`` understands; of several processes, this one's.
        encode: returns named embeddings, each (micro batch, E); it may use random numbers. Micro
            batches may have different names, or none.
        loss_of: scalar loss of the embeddings of the whole batch, concatenated by name in order.
            Parameters that it uses itself (temperature, bias) get their gradient from this single
            call. It is not called if no micro batch has embeddings.
        device: where the model is; its random state is replayed.
        encode_with_loss: as ``encode``, and the micro batch's own part of a loss that needs no
            other micro batch (None if it has none). Default: ``encode`` and no such loss.
        one_pass: keep the graphs of all micro batches instead of encoding twice; for a batch that
            fits in memory. A single micro batch is always encoded once.
        exchange: with other processes.

    Returns:
        The loss, detached; of several processes, what this one adds to the sum.
    """
    final = encode_with_loss or (lambda micro_batch: (encode(micro_batch), None))
    if one_pass or len(micro_batches) == 1:
        encoded = [_forward(micro_batch, final) for micro_batch in micro_batches]
    else:
        encoded = [forward_no_grad(one, encode, device) for one in micro_batches]
    together = exchange or OneProcess()
    embeddings, places = together.all_gather([one.embeddings for one in encoded])
    total, cache = build_cache(embeddings, loss_of, together.is_owner, device)
    for one, place in zip(encoded, places, strict=True):
        own = forward_backward(one, final, cache, place)
        if own is not None:
            total = total + own
    return total


def forward_no_grad(
    micro_batch: MicroBatch, encode: Encode[MicroBatch], device: torch.device
) -> _Encoded[MicroBatch]:
    """Encode a micro batch without a graph, and remember the random state before it.

    Args:
        micro_batch: to encode.
        encode: as in :func:`grad_cache_backward`.
        device: where the model is.
    """
    state = RandomState.capture(device)
    with torch.no_grad():
        return _Encoded(micro_batch, encode(micro_batch), state=state)


def build_cache(
    embeddings: Embeddings, loss_of: Loss, is_owner: bool, device: torch.device
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Compute the loss on all embeddings and its gradient for each of them.

    Args:
        embeddings: name -> (rows of the global batch, E).
        loss_of: as in :func:`grad_cache_backward`; its own parameters get their gradient here.
        is_owner: False if another process adds the loss and the gradients of those parameters.
        device: of the returned loss.

    Returns:
        The loss, detached (0 unless ``is_owner``), and the cache: name -> gradient of the loss for
        the embeddings of that name.
    """
    leaves = {name: rows.requires_grad_() for name, rows in embeddings.items()}
    if not leaves:
        return torch.zeros((), device=device), {}
    loss = loss_of(leaves)
    loss.backward(inputs=None if is_owner else list(leaves.values()))
    total = loss.detach() if is_owner else torch.zeros_like(loss)
    return total, {name: rows.grad for name, rows in leaves.items()}


def forward_backward(
    encoded: _Encoded[MicroBatch],
    encode_with_loss: EncodeWithLoss[MicroBatch],
    cache: dict[str, Tensor | None],
    place: dict[str, slice] | None,
) -> Tensor | None:
    """Send a micro batch's part of the cached gradients, and of its own loss, through its graph.

    Args:
        encoded: the micro batch after the first pass.
        encode_with_loss: encodes it again, unless its graph was kept.
        cache: of :func:`build_cache`.
        place: its rows by name; None for padding, whose gradients are zero.

    Returns:
        Its own loss, detached; None if it has none or is padding.
    """
    if encoded.graph is not None:
        again, own = encoded.graph
    else:
        assert encoded.state is not None
        with encoded.state.replay():
            again, own = encode_with_loss(encoded.micro_batch)
    outputs: list[Tensor] = []
    gradients: list[Tensor | None] = []
    for name, rows in again.items():
        gradient = cache[name]
        if gradient is not None and rows.requires_grad:  # not of a frozen tower
            outputs.append(rows)
            gradients.append(torch.zeros_like(rows) if place is None else gradient[place[name]])
    if own is not None:
        outputs.append(own)
        gradients.append(None if place is not None else torch.zeros_like(own))
    if outputs:
        torch.autograd.backward(outputs, gradients)
    return None if own is None or place is None else own.detach()


def _forward(
    micro_batch: MicroBatch, encode_with_loss: EncodeWithLoss[MicroBatch]
) -> _Encoded[MicroBatch]:
    """Encode a micro batch once and keep its graph."""
    embeddings, own = encode_with_loss(micro_batch)
    detached = {name: rows.detach() for name, rows in embeddings.items()}
    return _Encoded(micro_batch, detached, graph=(embeddings, own))
