"""Local attention: most blocks look within windows of the token grid, a few look everywhere.

Windows with a few global blocks spread evenly over the depth are ViTDet's (Li et al.,
arXiv 2203.16527). Weights are those of an encoder whose blocks all look everywhere, and the cost of
a local block grows with the tokens and not with their square, which makes larger patches possible.

The tokens of a sample are put in the order of their windows once, before the first block. A window
is then a stretch of the list, exactly as a sample is, and every kernel of
colipri.architectures.packing works on it. Global blocks do not mind the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class LocalAttention:
    """Which blocks look where.

    Attributes:
        window: tokens of a window per axis, counted from the first token of the crop.
        global_blocks: numbers of the blocks, from 0, that attend to all tokens.
    """

    window: Triple
    global_blocks: frozenset[int]

    @classmethod
    def of(cls, depth: int, window: Sequence[int], global_blocks: int = 4) -> LocalAttention:
        """Spread the global blocks evenly; the last block is one of them.

        Args:
            depth: blocks.
            window: tokens per axis.
            global_blocks: how many.

        Raises:
            ValueError: a window of another form, or more global blocks than blocks.
        """
        if len(window) != 3 or min(window) < 1:
            raise ValueError(f"a window of attention needs three sizes in tokens, not {window}")
        if not 0 <= global_blocks <= depth:
            raise ValueError(f"of {depth} blocks {global_blocks} cannot be global")
        a, b, c = (int(size) for size in window)
        numbers = (depth * (n + 1) // global_blocks - 1 for n in range(global_blocks))
        return cls((a, b, c), frozenset(numbers))


def window_order(
    positions: np.ndarray, lengths: Sequence[int], window: Triple
) -> tuple[np.ndarray, list[int]]:
    """Order the tokens of each sample by windows.

    Args:
        positions: (T, 3) integers, sample after sample; -1 for registers, which are a window of
            their own.
        lengths: tokens of each sample.
        window: tokens per axis.

    Returns:
        (T,) indices of the tokens in their new order, in which samples stay where they are, and the
        tokens of each window that is not empty.
    """
    cells = positions // np.array(window) + 1  # registers, at -1, come first
    counts = cells.max(axis=0, initial=0) + 1
    keys = np.ravel_multi_index(tuple(cells.T), tuple(counts))
    keys = keys + np.repeat(np.arange(len(lengths)), lengths) * counts.prod()
    order = keys.argsort(kind="stable")
    return order, np.unique(keys[order], return_counts=True)[1].tolist()
