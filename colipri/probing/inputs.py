"""What heads see: pooled vectors and tokens of scans, stored or fresh from the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from colipri.features.merging import ALL_TOKENS, edge_of
from colipri.features.shards import CaseFeatures
from colipri.features.store import FeatureStore

# Vectors that a head may read, and what each is made of.
VECTORS = {
    "embedding": ("embedding",),
    "mean": ("mean",),
    "max": ("max",),
    "mean and max": ("mean", "max"),
    "statistics": ("statistics",),
}
_IN_MEMORY = 4 * 2**30  # bytes of tokens that are kept; more are read batch by batch


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of B scans, padded to the longest.

    Attributes:
        tokens: (B, K, D) float32.
        mask: (B, K) bool, False at padding.
        places: (B, K, 3) float32 in [0, 1], where a token is in the grid.
        counts: (B, K) float32, tokens that each entry averages.
    """

    tokens: Tensor
    mask: Tensor
    places: Tensor
    counts: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on a device."""
        return TokenBatch(
            self.tokens.to(device),
            self.mask.to(device),
            self.places.to(device),
            self.counts.to(device),
        )


class HeadInputs:
    """The features of some scans, as heads read them.

    Args:
        store: Of the features.
        cases: Identifiers, n.
    """

    def __init__(self, store: FeatureStore, cases: Sequence[str]) -> None:
        self.store, self.cases = store, list(cases)
        self._kept: dict[int, CaseFeatures] | None = None
        width = int(store.index["token_width"])
        if sum(store.num_tokens(case) for case in self.cases) * width * 2 <= _IN_MEMORY:
            self._kept = {}

    def __len__(self) -> int:
        return len(self.cases)

    def vectors(self, kind: str) -> np.ndarray:
        """Return (n, width) float32; ``kind`` is one of :data:`VECTORS`."""
        parts = [self.store.pooled(self.cases, part) for part in VECTORS[kind]]
        return np.concatenate(parts, axis=1)

    def tokens(self, rows: Sequence[int] | np.ndarray) -> TokenBatch:
        """Return the tokens of some scans."""
        num_tokens = int(self.store.key["num_tokens"])
        return batch_of([self._read(int(row)) for row in rows], num_tokens)

    def _read(self, row: int) -> CaseFeatures:
        if self._kept is None:
            return self.store.read(self.cases[row])
        if row not in self._kept:
            self._kept[row] = self.store.read(self.cases[row])
        return self._kept[row]


class FreshInputs:
    """The same for scans that were encoded just now.

    Args:
        features: Of n scans.
        num_tokens: Cells that their tokens were merged to; 0 for all tokens.
    """

    def __init__(self, features: Sequence[CaseFeatures], num_tokens: int) -> None:
        self.features, self.num_tokens = list(features), num_tokens

    def __len__(self) -> int:
        return len(self.features)

    def vectors(self, kind: str) -> np.ndarray:
        """As :meth:`HeadInputs.vectors`."""
        rows = [np.concatenate([f.pooled[part] for part in VECTORS[kind]]) for f in self.features]
        return np.stack(rows)

    def tokens(self, rows: Sequence[int] | np.ndarray) -> TokenBatch:
        """As :meth:`HeadInputs.tokens`."""
        return batch_of([self.features[int(row)] for row in rows], self.num_tokens)


def batch_of(cases: Sequence[CaseFeatures], num_tokens: int) -> TokenBatch:
    """Stack the tokens of some scans.

    Args:
        cases: At least one.
        num_tokens: Cells that their tokens were merged to; 0 for all tokens.
    """
    longest = max(len(case.tokens) for case in cases)
    width = cases[0].tokens.shape[1]
    tokens = np.zeros((len(cases), longest, width), dtype=np.float32)
    mask = np.zeros((len(cases), longest), dtype=bool)
    places = np.zeros((len(cases), longest, 3), dtype=np.float32)
    counts = np.zeros((len(cases), longest), dtype=np.float32)
    for row, case in enumerate(cases):
        size = len(case.tokens)
        edge = case.grid if num_tokens == ALL_TOKENS else (edge_of(num_tokens),) * 3
        tokens[row, :size], mask[row, :size] = case.tokens, True
        places[row, :size] = (case.positions + 0.5) / np.asarray(edge)
        counts[row, :size] = case.counts
    return TokenBatch(*(torch.from_numpy(array) for array in (tokens, mask, places, counts)))
