"""Image tokens in the language model's space, as LLaVA does it (arXiv 2304.08485, 2310.03744).

Each token is normalised, gets its place in the body (three numbers from -1 to 1: without them the
order of tokens, in which air is left out, says nothing about left and right), and passes a linear
layer, GELU and another linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.common.errors import ColipriError
from colipri.features.merging import edge_of, merge_tokens
from colipri.features.shards import CaseFeatures

FEWEST_TOKENS, MOST_TOKENS = 8, 512


class ImageProjector(nn.Module):
    """(K, D) image tokens and (K, 3) places -> (K, H) word embeddings.

    Args:
        token_width: D, of the encoder.
        word_width: H, of the language model.
    """

    def __init__(self, token_width: int, word_width: int) -> None:
        super().__init__()
        self.token_width = token_width
        self.first = nn.Linear(token_width + 3, word_width)
        self.second = nn.Linear(word_width, word_width)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Project one image's tokens."""
        normalised = F.layer_norm(tokens.float(), (self.token_width,))
        joined = torch.cat([normalised, places.float()], dim=-1)
        projected: Tensor = self.second(F.gelu(self.first(joined)))
        return projected


def check_image_tokens(number: int) -> int:
    """Return the edge of the grid that image tokens are pooled to.

    Raises:
        ColipriError: not a cube number from 8 to 512.
    """
    edge = edge_of(number)
    if not edge or not FEWEST_TOKENS <= number <= MOST_TOKENS:
        raise ColipriError(
            f"--image_tokens must be a cube number from {FEWEST_TOKENS} to {MOST_TOKENS} (8, 27, "
            f"64, 125, 216, 343 or 512), not {number}"
        )
    return edge


def pooled_image_tokens(
    tokens: np.ndarray, positions: np.ndarray, grid: Sequence[int], num_tokens: int
) -> tuple[Tensor, Tensor]:
    """Pool an encoder's tokens to a coarse grid without air.

    Args:
        tokens: (N, D).
        positions: (N, 3) in ``grid``.
        grid: Tokens per axis.
        num_tokens: Cells of the coarse grid.

    Returns:
        (K, D) float32 and their places (K, 3), from -1 to 1 along each axis.
    """
    edge = check_image_tokens(num_tokens)
    means, cells, _ = merge_tokens(np.asarray(tokens, np.float32), positions, grid, num_tokens)
    return torch.from_numpy(means).float(), _places(cells, edge)


def stored_image_tokens(
    case: CaseFeatures, stored_tokens: int, num_tokens: int
) -> tuple[Tensor, Tensor]:
    """Return the image tokens of a case in a folder of features; see :func:`pooled_image_tokens`.

    Args:
        case: Read from a FeatureStore.
        stored_tokens: What it was made with (0: all tokens).
        num_tokens: That the writer uses.

    Raises:
        ColipriError: the stored tokens cannot be pooled to ``num_tokens``.
    """
    if stored_tokens == num_tokens:
        cells = np.asarray(case.positions, dtype=np.int64)
        places = _places(cells, check_image_tokens(num_tokens))
        return torch.from_numpy(case.tokens.astype(np.float32)), places
    if stored_tokens != 0:
        raise ColipriError(
            f"the features hold {stored_tokens} tokens a scan, the writer uses {num_tokens}; "
            f"encode with --tokens {num_tokens} or --tokens all"
        )
    return pooled_image_tokens(case.tokens, case.positions, case.grid, num_tokens)


def _places(cells: np.ndarray, edge: int) -> Tensor:
    centres = (np.asarray(cells, dtype=np.float32) + 0.5) / edge
    return torch.from_numpy(2 * centres - 1).float()
