"""Heads as modules: what turns the features of a scan into one logit per finding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.pooling import masked_mean
from colipri.common.errors import ColipriError
from colipri.probing.inputs import FreshInputs, HeadInputs, TokenBatch

Inputs = HeadInputs | FreshInputs
_AT_ONCE = 32  # scans


class Head(Protocol):
    """Something that scores scans.

    Attributes:
        kind: Its name in :data:`HEADS`.
    """

    kind: str

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build it again."""

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Return (n, F) float64."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return its numbers."""


class LinearHead(nn.Module):
    """A linear layer on a standardized vector.

    Args:
        vector: Which one, see ``colipri.probing.inputs.VECTORS``.
        width: Of the vector.
        num_findings: F.
    """

    kind = "linear"
    centre: Tensor
    scale: Tensor

    def __init__(self, vector: str, width: int, num_findings: int) -> None:
        super().__init__()
        self.vector, self.width, self.num_findings = vector, width, num_findings
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.linear = nn.Linear(width, num_findings)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build it again."""
        return {"vector": self.vector, "width": self.width, "num_findings": self.num_findings}

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, width) -> (B, F)."""
        result: Tensor = self.linear((vectors - self.centre) / self.scale)
        return result

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Return (n, F) float64."""
        with torch.inference_mode():
            vectors = torch.from_numpy(inputs.vectors(self.vector)).to(self.linear.weight.device)
            return self(vectors).double().cpu().numpy()


class NeighbourHead(nn.Module):
    """Weighted votes of the nearest training scans (kNN), as DINO weighs them: exp(cosine / 0.07).

    Args:
        vector: Which one.
        width: Of the vector.
        num_findings: F.
        num_training: Scans that vote.
        neighbours: How many of them per scan.
    """

    kind = "neighbours"
    TEMPERATURE = 0.07  # Caron et al., ICCV 2021
    centre: Tensor
    vectors: Tensor
    labels: Tensor

    def __init__(
        self, vector: str, width: int, num_findings: int, num_training: int, neighbours: int
    ) -> None:
        super().__init__()
        self.vector, self.width, self.num_findings = vector, width, num_findings
        self.num_training, self.neighbours = num_training, neighbours
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("vectors", torch.zeros(num_training, width))
        self.register_buffer("labels", torch.zeros(num_training, num_findings))

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build it again."""
        return {
            "vector": self.vector,
            "width": self.width,
            "num_findings": self.num_findings,
            "num_training": self.num_training,
            "neighbours": self.neighbours,
        }

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, width) -> (B, F): the logit of the share of votes, with one vote of prior knowledge.

        Training scans whose label is unknown do not vote; the prior is the finding's frequency.
        """
        known = torch.isfinite(self.labels).to(vectors.dtype)
        labels = torch.nan_to_num(self.labels)
        prior = (labels * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)
        similarity = (
            F.normalize(vectors - self.centre, dim=-1) @ F.normalize(self.vectors, dim=-1).T
        )
        best, index = similarity.topk(min(self.neighbours, self.num_training), dim=-1)
        weight = ((best - best[:, :1]) / self.TEMPERATURE).exp().unsqueeze(-1)  # the nearest: 1
        votes = (weight * labels[index] * known[index]).sum(dim=1) + prior
        total = (weight * known[index]).sum(dim=1) + 1
        return torch.logit((votes / total).clamp(1e-6, 1 - 1e-6))

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Return (n, F) float64."""
        with torch.inference_mode():
            vectors = torch.from_numpy(inputs.vectors(self.vector)).to(self.vectors.device)
            parts = [self(part) for part in vectors.split(1024)]
            return torch.cat(parts).double().cpu().numpy()


class PoolingHead(nn.Module):
    """One of the paper's probes: pool the tokens, then a linear layer.

    Args:
        pooling: One of :data:`POOLINGS`.
        width: D.
        num_findings: F.
    """

    kind = "pooling"

    def __init__(self, pooling: str, width: int, num_findings: int) -> None:
        super().__init__()
        self.pooling, self.width, self.num_findings = pooling, width, num_findings
        queries = POOLINGS[pooling]
        self.queries = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))
        self.linear = nn.Linear(width, num_findings)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build it again."""
        return {"pooling": self.pooling, "width": self.width, "num_findings": self.num_findings}

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Return (n, F) float64."""
        with torch.inference_mode():
            pooled = pooled_vectors(self.pooling, inputs, self.queries)
            return self.linear(pooled).double().cpu().numpy()


# Pooling -> learned queries. The mean query attends with the mean of the tokens.
POOLINGS = {
    "mean": 0,
    "max": 0,
    "mean query": 0,
    "learned query": 1,
    "four learned queries": 4,
}


def pooled_vectors(pooling: str, inputs: Inputs, queries: Tensor) -> Tensor:
    """Pool every scan, (n, D) on the device of the queries.

    Args:
        pooling: One of :data:`POOLINGS`.
        inputs: n scans.
        queries: (Q, D) learned ones; only their device counts where there are none.
    """
    device = queries.device
    if pooling in ("mean", "max"):
        return torch.from_numpy(inputs.vectors(pooling)).to(device)
    parts = []
    for first in range(0, len(inputs), _AT_ONCE):
        batch = inputs.tokens(range(first, min(first + _AT_ONCE, len(inputs)))).to(device)
        chosen = queries if POOLINGS[pooling] else None
        parts.append(attend(batch, chosen))
    return torch.cat(parts)


def attend(batch: TokenBatch, queries: Tensor | None) -> Tensor:
    """Scaled dot-product attention without projections, averaged over queries: (B, D).

    Args:
        batch: B scans.
        queries: (Q, D), or None for the mean token of each scan.
    """
    if queries is None:
        chosen = masked_mean(batch.tokens, batch.mask).unsqueeze(1)
    else:
        chosen = queries.unsqueeze(0).expand(len(batch.tokens), -1, -1)
    pooled = F.scaled_dot_product_attention(
        chosen, batch.tokens, batch.tokens, attn_mask=batch.mask.unsqueeze(1)
    )
    return pooled.mean(dim=1)


class AttentiveHead(nn.Module):
    """One learned query per finding looks at all tokens and their places; a linear layer each.

    Args:
        width: D of the tokens.
        num_findings: F.
        inner: Width of attention.
        num_heads: Of attention.
        dropout: Of tokens and of what attention gives.
    """

    kind = "attentive"

    def __init__(
        self,
        width: int,
        num_findings: int,
        inner: int = 128,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.num_findings, self.inner = width, num_findings, inner
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(width)
        self.place = nn.Linear(3, inner)
        self.project = nn.Linear(width, inner)
        self.queries = nn.Parameter(torch.randn(num_findings, inner) * 0.02)
        self.attention = nn.MultiheadAttention(inner, num_heads, batch_first=True)
        self.after = nn.LayerNorm(inner)
        self.weight = nn.Parameter(torch.zeros(num_findings, inner))
        self.bias = nn.Parameter(torch.zeros(num_findings))

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build it again."""
        return {
            "width": self.width,
            "num_findings": self.num_findings,
            "inner": self.inner,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }

    def forward(self, batch: TokenBatch) -> Tensor:
        """B scans -> (B, F)."""
        mask = batch.mask
        if self.training and self.dropout:  # tokens are dropped, never all of a scan
            kept = mask & (torch.rand_like(mask, dtype=torch.float32) >= self.dropout)
            mask = torch.where(kept.any(dim=1, keepdim=True), kept, mask)
        tokens = self.project(self.norm(batch.tokens))
        keys = tokens + self.place(2 * batch.places - 1)
        queries = self.queries.unsqueeze(0).expand(len(tokens), -1, -1)
        found, _ = self.attention(queries, keys, tokens, key_padding_mask=~mask, need_weights=False)
        found = F.dropout(self.after(found), self.dropout, self.training)
        return (found * self.weight).sum(dim=-1) + self.bias

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Return (n, F) float64."""
        self.eval()
        with torch.inference_mode():
            parts = [
                self(
                    inputs.tokens(range(first, min(first + _AT_ONCE, len(inputs)))).to(
                        self.bias.device
                    )
                )
                for first in range(0, len(inputs), _AT_ONCE)
            ]
            return torch.cat(parts).double().cpu().numpy()


HEADS: Mapping[str, type[Any]] = {
    head.kind: head for head in (LinearHead, NeighbourHead, PoolingHead, AttentiveHead)
}


def build_head(kind: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Build a head from what :meth:`Head.settings` and its state gave.

    Args:
        kind: Of :data:`HEADS`.
        settings: Its arguments.
        state: Its numbers.

    Raises:
        ColipriError: unknown kind, or numbers that do not fit.
    """
    if kind not in HEADS:
        raise ColipriError(f"a head of the kind '{kind}' is unknown; known: {', '.join(HEADS)}")
    try:
        head = HEADS[kind](**settings)
        head.load_state_dict(dict(state))
    except (TypeError, RuntimeError, KeyError) as error:
        raise ColipriError(f"the head's numbers do not fit it: {str(error)[:200]}") from error
    return head.eval()
