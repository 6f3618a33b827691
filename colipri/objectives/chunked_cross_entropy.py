"""Cross entropy over a large vocabulary without keeping its logits.

Logits of a long report take vocabulary x length numbers, more than the decoder itself: 30,522 x
512 in float32 are 60 MB a report, kept twice. Here they are computed for some tokens at a time, and
again in the backward pass; what is kept is the hidden states.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float = 0.0, chunk: int = 1024
) -> Tensor:
    """Cross entropy of ``hidden @ weight.T`` for each token.

    Args:
        hidden: (n, d).
        weight: (V, d), the output layer.
        targets: (n,) int64.
        label_smoothing: share of the target spread over the vocabulary.
        chunk: tokens at a time.

    Returns:
        (n,) float32.
    """
    parts = [
        checkpoint(_cross_entropy, rows, weight, wanted, label_smoothing, use_reentrant=False)
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def _cross_entropy(rows: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    logits = F.linear(rows, weight).float()
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
