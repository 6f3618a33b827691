"""Stems: image -> one feature vector per token patch.

``linear`` is Primus' single strided convolution. ``v2`` and ``v3`` are the convolutional stems of
PrimusV2 and V3; they are dynamic-network-architectures' own modules (a dependency of nnU-Net), so
their weights fit by construction. ``light`` is ours: its first layer halves the resolution before
anything is convolved, which costs a tenth of ``v2``; small data sets on small machines learn from a
convolutional stem what a linear one would need far more images for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class LinearStem(nn.Module):
    """One convolution with stride = kernel = token patch; its weight is ``proj``, as in Primus."""

    def __init__(self, input_channels: int, embed_dim: int, patch: Sequence[int]) -> None:
        super().__init__()
        size = tuple(patch)
        self.proj = nn.Conv3d(input_channels, embed_dim, kernel_size=size, stride=size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, G0, G1, G2)."""
        return self.proj(image)  # type: ignore[no-any-return]


class LightStem(nn.Module):
    """Three halvings by strided 2 x 2 x 2 convolutions, each followed by 3 x 3 x 3 ones.

    Args:
        input_channels: C.
        embed_dim: D.
        features: channels after each of the three halvings.
        depth_per_level: 3 x 3 x 3 convolutions at each level.
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        features: Sequence[int] = (16, 32, 64),
        depth_per_level: Sequence[int] = (0, 1, 1),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_channels
        for width, depth in zip(features, depth_per_level, strict=True):
            layers += [nn.Conv3d(channels, width, 2, 2), *_norm_and_activation(width)]
            for _ in range(depth):
                layers += [nn.Conv3d(width, width, 3, 1, 1), *_norm_and_activation(width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv3d(channels, embed_dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, A0/8, A1/8, A2/8)."""
        return self.proj(self.layers(image))  # type: ignore[no-any-return]


def _norm_and_activation(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm3d(width, affine=True), nn.ReLU(inplace=True)]


def build_stem(
    name: str,
    input_channels: int,
    embed_dim: int,
    patch: Sequence[int],
    options: dict[str, Any],
) -> nn.Module:
    """Build a stem by the name that plans use.

    Raises:
        ValueError: unknown name, or a token patch that the stem cannot make.
    """
    if any(size < 1 or size & (size - 1) for size in patch):
        raise ValueError(f"token patch {tuple(patch)}: sizes must be powers of two")
    if name == "linear":
        return LinearStem(input_channels, embed_dim, patch)
    if tuple(patch) != (8, 8, 8):
        raise ValueError(f"the stem '{name}' makes tokens of 8 x 8 x 8 voxels, not {tuple(patch)}")
    if name == "light":
        return LightStem(input_channels, embed_dim, **options)
    from dynamic_network_architectures.building_blocks.patch_encode_decode import (
        PatchEmbed_deeper,
        PatchEmbedDeeperControlled,
    )
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He

    if name == "v2":
        stem: nn.Module = PatchEmbed_deeper(input_channels, embed_dim, **options)
    elif name == "v3":
        stem = PatchEmbedDeeperControlled(input_channels, embed_dim, **options)
    else:
        raise ValueError(f"unknown stem '{name}'; known: linear, light, v2, v3")
    stem.apply(InitWeights_He(1e-2))
    return stem
