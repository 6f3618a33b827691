"""Self-distillation's head: features as cosines to prototypes, and what spreads them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.packing import to_device

HIDDEN, BOTTLENECK = 512, 128  # DINO: 2,048 and 256, for 65,536 prototypes
_KOLEO_TOKENS = 256  # of a case at most: their distances are computed pairwise


class PrototypeHead(nn.Module):
    """Cosines of features to learned prototypes, through a small network (DINO's head).

    Args:
        dim: D, width of a feature.
        prototypes: P.
    """

    def __init__(self, dim: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK))
        self.prototypes = nn.Parameter(torch.empty(prototypes, BOTTLENECK))
        for weight in (self.mlp[0].weight, self.mlp[2].weight, self.prototypes):
            nn.init.trunc_normal_(cast(Tensor, weight), std=0.02)

    @staticmethod
    def flops(dim: int, prototypes: int) -> float:
        """Count forward FLOPs of one feature.

        Args:
            dim: D.
            prototypes: P.
        """
        return 2.0 * (dim * HIDDEN + HIDDEN * BOTTLENECK + BOTTLENECK * prototypes)

    @staticmethod
    def kept_bytes(prototypes: int) -> float:
        """Count the bytes that a feature's cross entropy keeps: layers, log softmax and target."""
        return 4.0 * (3 * prototypes + 3 * HIDDEN + 2 * BOTTLENECK)

    def embed(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., 128) float32 of length 1; in float32, because cosines are sharpened."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.mlp(features.float()), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., P) float32."""
        embedded = self.embed(features)
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(embedded, F.normalize(self.prototypes, dim=1))


def spread_loss(head: PrototypeHead, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """KoLeo of each case, (b,): minus the mean logarithm of the distance to the nearest token.

    Args:
        head: embeds the tokens.
        tokens: (b, K, D); every n-th of a case counts where it has many.
        mask: (b, K) bool on the CPU, False at padding, which is at the end; None if there is none.
    """
    total = tokens.shape[1]
    counts = torch.full((len(tokens),), total) if mask is None else mask.sum(dim=1)
    steps = -(-counts // _KOLEO_TOKENS)  # of its own tokens: no case depends on its neighbours
    index = torch.arange(min(total, _KOLEO_TOKENS)) * steps[:, None]
    real = to_device(index < counts[:, None], tokens.device)
    index = to_device(index.clamp(max=total - 1), tokens.device)
    chosen = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))
    embedded = head.embed(chosen)
    other = ~torch.eye(embedded.shape[1], dtype=torch.bool, device=real.device)
    pairs = real[:, :, None] & real[:, None] & other
    detached = embedded.detach()
    cosines = (detached @ detached.transpose(1, 2)).float().masked_fill(~pairs, -2.0)
    nearest = cosines.argmax(dim=2)
    neighbours = embedded.gather(1, nearest[..., None].expand(-1, -1, embedded.shape[2]))
    squares = (embedded - neighbours).square().sum(dim=2)
    has_neighbour = pairs.any(dim=2)
    losses = -0.5 * (squares + 1e-8).log() * has_neighbour
    return losses.sum(dim=1) / has_neighbour.sum(dim=1).clamp(min=1)
