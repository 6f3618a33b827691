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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from colipri.training.random_state import RandomState

MicroBatch = TypeVar("MicroBatch")
Encode = Callable[[MicroBatch], dict[str, Tensor]]
EncodeWithLoss = Callable[[MicroBatch], tuple[dict[str, Tensor], Tensor | None]]
Loss = Callable[[dict[str, Tensor]], Tensor]


def contrastive_backward(
    micro_batches: Sequence[MicroBatch],
    encode: Encode[MicroBatch],
    loss_of: Loss,
    device: torch.device,
    encode_with_loss: EncodeWithLoss[MicroBatch] | None = None,
    one_pass: bool = False,
) -> Tensor:
    """Add the gradient of ``loss_of(all embeddings)`` to the parameters, part by part.

    Args:
        micro_batches: whatever ``encode`` understands.
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

    Returns:
        The loss, detached.
    """
    final = encode_with_loss or (lambda micro_batch: (encode(micro_batch), None))
    if one_pass or len(micro_batches) == 1:
        encoded = [final(micro_batch) for micro_batch in micro_batches]
        embeddings = _joined([part for part, _ in encoded])
        whole = _sum([loss_of(embeddings) if embeddings else None, *(own for _, own in encoded)])
        whole.backward()
        return whole.detach()

    states, parts = [], []
    with torch.no_grad():
        for micro_batch in micro_batches:
            states.append(RandomState.capture(device))
            parts.append(encode(micro_batch))
    embeddings = {name: rows.requires_grad_() for name, rows in _joined(parts).items()}
    total: Tensor | None = None
    if embeddings:
        loss = loss_of(embeddings)
        loss.backward()
        total = loss.detach()

    starts = dict.fromkeys(embeddings, 0)
    for micro_batch, state, part in zip(micro_batches, states, parts, strict=True):
        with state.replay():
            again, own = final(micro_batch)
        outputs: list[Tensor] = []
        gradients: list[Tensor | None] = []
        for name in part:
            start, stop = starts[name], starts[name] + part[name].shape[0]
            starts[name] = stop
            gradient = embeddings[name].grad
            if gradient is not None and again[name].requires_grad:  # not of a frozen tower
                outputs.append(again[name])
                gradients.append(gradient[start:stop])
        if own is not None:
            outputs.append(own)
            gradients.append(None)
            total = _sum([total, own.detach()])
        if outputs:
            torch.autograd.backward(outputs, gradients)
    assert total is not None  # a step without any loss is refused when objectives are built
    return total


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate by name; a part may lack some names."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


def _sum(losses: Sequence[Tensor | None]) -> Tensor:
    present = [loss for loss in losses if loss is not None]
    return torch.stack(present).sum() if len(present) > 1 else present[0]
