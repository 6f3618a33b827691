"""Images as lists of token patches and back, in the one flatten order of the project.

Tokens and the voxels within a token both run with axis 0 slowest, as ``PrimusEncoder.tokenize`` and
``rope.grid_positions`` count them. Masks, targets and predictions all go through these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def patchify(image: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, A0, A1, A2) -> (B, N, C * p0 * p1 * p2)."""
    return _blocks(image, patch).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def unpatchify(patches: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """(B, N, C * p0 * p1 * p2) -> (B, C, A0, A1, A2); the inverse of :func:`patchify`."""
    batch = len(patches)
    channels = patches.shape[-1] // (patch[0] * patch[1] * patch[2])
    blocks = patches.reshape(batch, *grid, channels, *patch).permute(0, 4, 1, 5, 2, 6, 3, 7)
    sizes = [count * step for count, step in zip(grid, patch, strict=True)]
    return blocks.reshape(batch, channels, *sizes)


def fill_patches(image: Tensor, hidden: Tensor, patch: Sequence[int], value: float) -> Tensor:
    """A copy of the image in which whole token patches have one value.

    Args:
        image: (B, C, A0, A1, A2).
        hidden: (B, N) bool, True at the patches to fill.
    """
    blocks = _blocks(image, patch)
    grid = (blocks.shape[2], blocks.shape[4], blocks.shape[6])
    mask = hidden.reshape(len(image), 1, grid[0], 1, grid[1], 1, grid[2], 1)
    return blocks.masked_fill(mask, value).reshape(image.shape)


def _blocks(image: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, g0, p0, g1, p1, g2, p2)."""
    sizes = [
        part
        for size, step in zip(image.shape[2:], patch, strict=True)
        for part in (size // step, step)
    ]
    return image.reshape(*image.shape[:2], *sizes)
