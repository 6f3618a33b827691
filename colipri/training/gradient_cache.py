"""A contrastive batch of any size with the memory of one micro batch, and exact gradients.

GradCache (Gao et al., RepL4NLP 2021, arXiv 2101.06983): (1) every micro batch is encoded without a
graph; (2) the loss is computed once on all embeddings, which gives its gradient for each embedding
and for the temperature; (3) every micro batch is encoded again, with the same random numbers, and
its part of that gradient is sent through the encoders. The loss knows nothing of micro batches.
Summing the losses of micro batches instead (gradient accumulation) would see fewer negatives and
count the temperature's gradient once per micro batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from colipri.training.random_state import RandomState

MicroBatch = TypeVar("MicroBatch")
Encode = Callable[[MicroBatch], dict[str, Tensor]]
Loss = Callable[[dict[str, Tensor]], Tensor]


def contrastive_backward(
    micro_batches: Sequence[MicroBatch],
    encode: Encode[MicroBatch],
    loss_of: Loss,
    device: torch.device,
) -> Tensor:
    """Add the gradient of ``loss_of(all embeddings)`` to the parameters, part by part.

    Args:
        micro_batches: whatever ``encode`` understands; one suffices for a plain step.
        encode: gives named embeddings, each (micro batch, ...); it may use random numbers.
        loss_of: scalar loss of the embeddings of the whole batch, concatenated in order. Parameters
            that it uses itself (temperature, bias) get their gradient from this single call.
        device: where the model is; its random state is replayed.

    Returns:
        The loss, detached.
    """
    if len(micro_batches) == 1:
        loss = loss_of(encode(micro_batches[0]))
        loss.backward()
        return loss.detach()

    states, parts = [], []
    with torch.no_grad():
        for micro_batch in micro_batches:
            states.append(RandomState.capture(device))
            parts.append(encode(micro_batch))
    embeddings = {
        name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]
    }
    loss = loss_of(embeddings)
    loss.backward()

    start = 0
    for micro_batch, state, part in zip(micro_batches, states, parts, strict=True):
        stop = start + next(iter(part.values())).shape[0]
        with state.replay():
            again = encode(micro_batch)
        names = [name for name in again if embeddings[name].grad is not None]
        torch.autograd.backward(
            [again[name] for name in names],
            [_rows(embeddings[name], start, stop) for name in names],
        )
        start = stop
    return loss.detach()


def _rows(embedding: Tensor, start: int, stop: int) -> Tensor:
    gradient = embedding.grad
    assert gradient is not None  # the caller asks only for those that have one
    return gradient[start:stop]
