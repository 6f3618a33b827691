"""Stems: image -> one feature vector per token patch.

``linear`` is Primus' single strided convolution. ``v2`` and ``v3`` are the convolutional stems of
PrimusV2 and V3 (colipri.architectures.residual_stems). ``light`` is ours: its first layer halves
the resolution before anything is convolved, which costs a tenth of ``v2``; small data sets on small
machines learn from a convolutional stem what a linear one would need far more images for.
``resnet`` is a small residual network (colipri.architectures.resnet_stem).

Convolutional stems see the whole crop, air included (their instance norms average over it); only
the transformer behind them saves by dropping tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.residual_stems import LEAKY_SLOPE, ResidualStem, Triple
from colipri.architectures.resnet_stem import ResNetStem
from colipri.architectures.tokens import patch_rows, patchify

STEMS = ("linear", "light", "resnet", "v2", "v3")


class LinearStem(nn.Module):
    """One convolution with stride = kernel = token patch; its weight is ``proj``, as in Primus.

    Patches do not overlap, so it is computed as a matrix product of the patches that are wanted:
    the same numbers, and no library's choice of a convolution kernel can make it slow.

    Args:
        input_channels: of the image.
        embed_dim: D, width of a token.
        patch: voxels of a token per axis.
    """

    def __init__(self, input_channels: int, embed_dim: int, patch: Triple) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(input_channels, embed_dim, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, G0, G1, G2)."""
        grid = [size // step for size, step in zip(image.shape[2:], self.patch, strict=True)]
        return self.embed(patchify(image, self.patch)).transpose(1, 2).unflatten(2, grid)

    def embed(self, patches: Tensor) -> Tensor:
        """(..., C * p0 * p1 * p2) -> (..., D)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def embed_patches(
    stem: nn.Module, image: Tensor, where: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Tokens of all patches or of some, (T, D).

    Args:
        stem: of the encoder.
        image: (B, C, A0, A1, A2).
        where: (T,) samples and (T,) token indices; None for all, sample after sample.
    """
    if isinstance(stem, LinearStem) and where is not None:
        return stem.embed(patch_rows(image, stem.patch, *where))
    tokens: Tensor = stem(image).flatten(2).transpose(1, 2)
    return tokens.flatten(0, 1) if where is None else tokens[where]


class LightStem(nn.Module):
    """Halvings by strided convolutions, each followed by 3 x 3 x 3 ones.

    Args:
        input_channels: C.
        embed_dim: D.
        strides: per halving and axis, 1 or 2.
        features: channels after each of the halvings.
        depth_per_level: 3 x 3 x 3 convolutions after each of the halvings.
        context: channels of one more level, at twice the size of a token, whose features are added
            to those of the tokens within; 0 for none. It shows each token its surroundings, for
            which a shallow transformer would need more training than small machines can give.
        overlap: strided convolutions are 3 x 3 x 3, so that what lies on a border between two of
            their places is seen by both; False: kernel = stride.
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        strides: Sequence[Triple],
        features: Sequence[int] = (16, 32, 64),
        depth_per_level: Sequence[int] = (0, 1, 1),
        context: int = 0,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if not len(features) == len(depth_per_level) == len(strides):
            raise ValueError(
                f"a token patch with {len(strides)} halvings needs as many features and depths, "
                f"not {len(features)} and {len(depth_per_level)}"
            )
        layers: list[nn.Module] = []
        channels = input_channels
        for stride, width, depth in zip(strides, features, depth_per_level, strict=True):
            halve = (
                nn.Conv3d(channels, width, 3, stride, 1)
                if overlap
                else nn.Conv3d(channels, width, stride, stride)
            )
            layers += [halve, *_norm_and_activation(width)]
            for _ in range(depth):
                layers += [nn.Conv3d(width, width, 3, 1, 1), *_norm_and_activation(width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv3d(channels, embed_dim, 1)
        self.context = _context_level(channels, context, embed_dim) if context else None

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, G0, G1, G2)."""
        features = self.layers(image)
        tokens = self.proj(features)
        # one token has no surroundings, and a norm over one value would only erase it
        if self.context is not None and max(features.shape[2:]) > 2:
            around = self.context(features)
            tokens = tokens + F.interpolate(around, size=tokens.shape[2:], mode="nearest")
        return tokens


def _context_level(channels: int, width: int, embed_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, width, 3, 2, 1),  # odd grids keep their last token
        *_norm_and_activation(width),
        nn.Conv3d(width, width, 3, 1, 1),
        *_norm_and_activation(width),
        nn.Conv3d(width, embed_dim, 1),
    )


def _norm_and_activation(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm3d(width, affine=True), nn.ReLU(inplace=True)]


def halvings(patch: Sequence[int]) -> list[Triple]:
    """Strides that lead from voxels to tokens: (8, 8, 4) -> 2,2,2 then 2,2,2 then 2,2,1.

    Raises:
        ValueError: a size that is no power of two.
    """
    if len(patch) != 3 or any(size < 1 or size & (size - 1) for size in patch):
        raise ValueError(f"token patch {tuple(patch)}: three powers of two are needed")
    levels = max(patch).bit_length() - 1
    strides = []
    for level in range(levels):
        a, b, c = (2 if size >> level > 1 else 1 for size in patch)
        strides.append((a, b, c))
    return strides


def build_stem(
    name: str,
    input_channels: int,
    embed_dim: int,
    patch: Sequence[int],
    options: dict[str, Any],
) -> nn.Module:
    """Build a stem by the name that plans use, with He initialization as in Primus.

    Args:
        name: one of STEMS.
        input_channels: C.
        embed_dim: D.
        patch: voxels of a token per axis, powers of two.
        options: for "v2" ``base_features`` (32) and ``depth_per_level`` (1, 1, 1); for "v3"
            ``ch_per_level`` (32, 64, 256, 1024), ``depth_per_level`` and ``add_skips``; for "light"
            see :class:`LightStem`, for "resnet" :class:`ResNetStem`; none for "linear".

    Raises:
        ValueError: unknown name or option, or a token patch that the stem cannot make.
    """
    strides = halvings(patch)
    try:
        stem = _build(name, input_channels, embed_dim, strides, tuple(patch), dict(options))
    except TypeError as error:
        raise ValueError(f"the stem '{name}' does not understand {options}: {error}") from error
    for module in stem.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return stem


def _build(
    name: str,
    input_channels: int,
    embed_dim: int,
    strides: list[Triple],
    patch: tuple[int, ...],
    options: dict[str, Any],
) -> nn.Module:
    if name == "linear":
        a, b, c = patch
        return LinearStem(input_channels, embed_dim, (a, b, c), **options)
    if name == "light":
        return LightStem(input_channels, embed_dim, strides, **options)
    if name == "resnet":
        return ResNetStem(input_channels, embed_dim, strides, **options)
    depths = options.pop("depth_per_level", [1] * len(strides))
    if name == "v2":
        base = options.pop("base_features", 32)
        channels = [base, *(base * 2**level for level in range(len(strides)))]
        return ResidualStem(
            input_channels,
            embed_dim,
            strides,
            channels,
            depths,
            nn.ReLU(inplace=True),
            add_skips=False,
            **options,
        )
    if name == "v3":
        return ResidualStem(
            input_channels,
            embed_dim,
            strides,
            options.pop("ch_per_level", (32, 64, 256, 1024)),
            depths,
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            add_skips=options.pop("add_skips", True),
            **options,
        )
    raise ValueError(f"unknown stem '{name}'; known: {', '.join(STEMS)}")
