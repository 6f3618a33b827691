"""What the stems keep for the backward pass, counted layer by layer.

A convolution with norm and activation keeps two values per output channel: the norm its input, and
the activation, which works in place, its output; that one is the next convolution's input as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from colipri.architectures.stems import halvings

Level = tuple[int, int, int, float]  # channels in and out, blocks, output voxels per input voxel


def stem_values_per_voxel(
    stem: str,
    stem_kwargs: dict[str, Any],
    input_channels: int,
    embed_dim: int,
    patch: Sequence[int],
) -> float:
    """Return the numbers that a stem keeps per voxel of its input; its output counts as the blocks'
    input.

    Args:
        stem, stem_kwargs: see colipri.architectures.stems.build_stem.
        input_channels: C.
        embed_dim: D, width of a token.
        patch: voxels of a token per axis.
    """
    if stem == "linear":
        return float(input_channels)
    levels = _levels(stem, stem_kwargs, patch)
    if stem == "light":
        kept = input_channels + sum(2 * width * (1 + depth) * s for _, width, depth, s in levels)
        return kept + 4 * stem_kwargs.get("context", 0) * levels[-1][-1] / 8
    if stem == "resnet":
        return _resnet_values(levels, input_channels)
    first = levels[0][0]
    kept = input_channels + _residual_block(input_channels, first, False)
    for width_in, width, depth, share in levels:
        kept += share * (_residual_block(width_in, width, True) + 4 * width * (depth - 1))
    if stem == "v3" and stem_kwargs.get("add_skips", True):
        kept += len(levels) * embed_dim / prod(patch)  # projected features of each level, scaled
    return float(kept)


def _resnet_values(levels: list[Level], input_channels: int) -> float:
    """Blocks of voxels and one convolution, then residual blocks, then those of surroundings."""
    (_, first, _, share), *halved = levels
    kept = input_channels + 2 * first * share
    for width_in, width, depth, share in halved:
        kept += share * (_residual_block(width_in, width, True) + 4 * width * (depth - 1))
    return kept


def pooled_values_per_voxel(stem: str, stem_kwargs: dict[str, Any], patch: Sequence[int]) -> float:
    """Count the numbers per voxel that enter the residual stems' average pools.

    Args:
        stem: name of the stem.
        stem_kwargs: its options.
        patch: voxels of a token per axis.
    """
    if stem not in ("resnet", "v2", "v3"):
        return 0.0
    total, share_before = 0.0, 1.0
    for width_in, _, _, share in _levels(stem, stem_kwargs, patch):
        total += width_in * share_before
        share_before = share
    return total


def _residual_block(width_in: int, width: int, strides: bool) -> float:
    """Two convolutions, and where the channels change the projected shortcut."""
    if width_in == width:
        return 4 * width
    return 5 * width + (width_in if strides else 0)


def _levels(stem: str, stem_kwargs: dict[str, Any], patch: Sequence[int]) -> list[Level]:
    strides = halvings(patch)
    shares, share = [], 1.0
    for stride in strides:
        share /= prod(stride)
        shares.append(share)
    if stem == "light":
        features = list(stem_kwargs.get("features", (16, 32, 64)))
        depths = list(stem_kwargs.get("depth_per_level", (0, 1, 1)))
        widths = [0, *features]
    elif stem == "resnet":
        base = stem_kwargs.get("base_features", 24)
        # the first level has no residual block, the last one is that of the surroundings
        depths = [0, *stem_kwargs.get("depth_per_level", [1] * len(strides))]
        shares.append(share / 8)
        widths = [0, *(base * 2**level for level in range(len(strides) + 1))]
    else:
        depths = list(stem_kwargs.get("depth_per_level", [1] * len(strides)))
        base = stem_kwargs.get("base_features", 32)
        doubled = [base, *(base * 2**level for level in range(len(strides)))]
        widths = list(stem_kwargs.get("ch_per_level", (32, 64, 256, 1024)))
        widths = doubled if stem == "v2" else widths
    return list(zip(widths[:-1], widths[1:], depths, shares, strict=True))
