"""The loss of a decoder's next tokens, without keeping logits over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from colipri.architectures.packing import Padding


@dataclass(frozen=True)
class WantedTokens:
    """What a decoder should say next, and how its error is measured.

    Attributes:
        ids: (B, T), the token that should follow each one.
        mask: (B, T) bool on the CPU, False where it is padding.
        label_smoothing: share of each target spread over the vocabulary.
        chunk: tokens whose logits exist at the same time.
    """

    ids: Tensor
    mask: Tensor
    label_smoothing: float = 0.0
    chunk: int = 1024

    def errors(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Return the cross entropy of each token, (B, T) float32; 0 at padding.

        Args:
            hidden: (B, T, d).
            weight: (V, d), the output layer.
        """
        padding = Padding.of((len(hidden), hidden.shape[1]), self.mask)
        by_token = chunked_cross_entropy(
            padding.pack(hidden), weight, padding.pack(self.ids), self.label_smoothing, self.chunk
        )
        return padding.unpack(by_token)


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float = 0.0, chunk: int = 1024
) -> Tensor:
    """Cross entropy of ``hidden @ weight.T`` for each token, without keeping the logits.

    Logits of a long report take vocabulary x length numbers, more than the decoder itself: 30,522 x
    512 in float32 are 60 MB a report, kept twice. Here they are computed for some tokens at a time,
    and again in the backward pass; only the hidden states are kept.

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
