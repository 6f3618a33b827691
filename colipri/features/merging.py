"""Fewer tokens per scan: the mean of the kept tokens in every cell of a coarse grid, without air.

A scan of 192^3 voxels has 13,824 tokens. On a grid of 6 x 6 x 6 cells it has at most 216: a cell
without any kept token (air) has none, and no air dilutes the mean of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colipri.common.errors import ColipriError

ALL_TOKENS = 0  # the number of cells that stands for "as encoded"
_LARGEST_EDGE = 64


def parse_num_tokens(text: str) -> int:
    """Return the cells per scan that ``--tokens`` asks for: a cube number, or 0 for "all".

    Raises:
        ColipriError: neither.
    """
    if text == "all":
        return ALL_TOKENS
    try:
        edge = edge_of(int(text))
    except ValueError:
        edge = 0
    if not edge:
        raise ColipriError(
            f"--tokens must be all, or a cube number such as 1, 27, 216 or 1728, not {text}"
        )
    return edge**3


def edge_of(num_cells: int) -> int:
    """Return the cells along each axis of a grid of ``num_cells``; 0 if it is not a cube."""
    for edge in range(1, _LARGEST_EDGE + 1):
        if edge**3 == num_cells:
            return edge
    return 0


def merge_tokens(
    tokens: np.ndarray, positions: np.ndarray, grid: Sequence[int], num_cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the tokens of each cell.

    Args:
        tokens: (K, D) float32, the kept tokens.
        positions: (K, 3) their coordinates in ``grid``.
        grid: Tokens per axis.
        num_cells: Of the coarse grid, a cube number; 0 leaves the tokens as they are. An axis with
            fewer tokens than cells has one cell per token.

    Returns:
        (M, D) float32 means, (M, 3) cell coordinates in grid order (axis 0 slowest), and (M,) how
        many tokens each cell averages.
    """
    positions = np.asarray(positions, dtype=np.int64)
    if num_cells == ALL_TOKENS:
        return tokens, positions, np.ones(len(tokens), dtype=np.int64)
    edge = edge_of(num_cells)
    cells = positions * edge // np.asarray(grid, dtype=np.int64)
    flat = (cells[:, 0] * edge + cells[:, 1]) * edge + cells[:, 2]
    order = np.argsort(flat, kind="stable")
    _, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(tokens[order].astype(np.float64), starts, axis=0)
    means = (sums / counts[:, None]).astype(np.float32)
    return means, cells[order][starts], counts
