"""A contrastive batch of any size with the memory of one micro batch, and exact gradients.

GradCache (Gao et al., RepL4NLP 2021, arXiv 2101.06983): (1) every micro batch is encoded without a
graph; (2) the loss is computed once on all embeddings, which gives its gradient for each embedding
and for the temperature; (3) every micro batch is encoded again, with the same random numbers, and
its part of that gradient is sent through the encoders. The loss knows nothing of micro batches.
Summing the losses of micro batches instead (gradient accumulation) would see fewer negatives and
count the temperature's gradient once per micro batch.

Micro batches need not be alike: some hold images and captions, others sentences, others images
without a text. Losses that need no other case (report generation, masked image modelling) are added
in step 3, where the micro batch is encoded with a graph anyway.

Several processes share the parts of one batch: each encodes its own, all embeddings are exchanged,
every process computes the same loss, and sends the gradient of its own rows through its own graphs.
What the processes have then, loss and gradients, adds up to what one process has with all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from colipri.training.random_state import RandomState

MicroBatch = TypeVar("MicroBatch")
Encode = Callable[[MicroBatch], dict[str, Tensor]]
EncodeWithLoss = Callable[[MicroBatch], tuple[dict[str, Tensor], Tensor | None]]
Loss = Callable[[dict[str, Tensor]], Tensor]
Places = list[dict[str, slice] | None]


class Exchange(Protocol):
    """How the embeddings of all parts come together (colipri.training.distributed.exchange)."""

    @property
    def counts(self) -> bool:
        """Whether this process adds the comparing loss itself, and the gradient of parameters that
        it uses: once among all processes."""
        ...

    def joined(self, parts: Sequence[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Places]:
        """All embeddings by name, and where the rows of each part are; None: it does not count."""
        ...


class OneProcess:
    """All parts are here."""

    counts = True

    def joined(self, parts: Sequence[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Places]:
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
        encode: gives named embeddings, each (micro batch, ...); it may use random numbers. Micro
            batches may have different names, or none.
        loss_of: scalar loss of the embeddings of the whole batch, concatenated by name in order.
            Parameters that it uses itself (temperature, bias) get their gradient from this single
            call. It is not called if no micro batch has embeddings.
        device: where the model is; its random state is replayed.
        encode_with_loss: as ``encode``, and the micro batch's own share of a loss that needs no
            other micro batch (None where it has none). Default: ``encode`` and no such loss.
        one_pass: keep the graphs of all micro batches instead of encoding twice; for a batch that
            fits. A single micro batch is always done so.
        exchange: with other processes.

    Returns:
        The loss, detached; of several processes, what this one adds to the sum.
    """
    final = encode_with_loss or (lambda micro_batch: (encode(micro_batch), None))
    keep = one_pass or len(micro_batches) == 1
    kept, states, parts = [], [], []
    for micro_batch in micro_batches:
        if keep:
            kept.append(final(micro_batch))
            parts.append({name: rows.detach() for name, rows in kept[-1][0].items()})
        else:
            states.append(RandomState.capture(device))
            with torch.no_grad():
                parts.append(encode(micro_batch))

    together = exchange or OneProcess()
    joined, places = together.joined(parts)
    embeddings = {name: rows.requires_grad_() for name, rows in joined.items()}
    total = torch.zeros((), device=device)
    if embeddings:
        loss = loss_of(embeddings)
        loss.backward(inputs=None if together.counts else list(embeddings.values()))
        total = loss.detach() if together.counts else torch.zeros_like(loss)

    for number, (micro_batch, place) in enumerate(zip(micro_batches, places, strict=True)):
        if keep:
            again, own = kept[number]
        else:
            with states[number].replay():
                again, own = final(micro_batch)
        outputs: list[Tensor] = []
        gradients: list[Tensor | None] = []
        for name, rows in again.items():
            gradient = embeddings[name].grad
            if gradient is not None and rows.requires_grad:  # not of a frozen tower
                outputs.append(rows)
                gradients.append(torch.zeros_like(rows) if place is None else gradient[place[name]])
        if own is not None:
            outputs.append(own)
            gradients.append(None if place is not None else torch.zeros_like(own))
            total = total + own.detach() if place is not None else total
        if outputs:
            torch.autograd.backward(outputs, gradients)
    return total
