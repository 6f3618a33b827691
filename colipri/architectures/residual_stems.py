"""The convolutional stems of PrimusV2 and PrimusV3, from scratch, with their parameter names.

Residual networks of the ResNet-D kind (arXiv 1812.01187: the shortcut pools before its 1 x 1 x 1
convolution) that halve the resolution until one voxel is one token. Weights of
dynamic-network-architectures' PatchEmbed_deeper and PatchEmbedDeeperControlled fit (there every
convolution is listed a second time as ``all_modules``; colipri.checkpoints.weight_conversion drops
and restores those).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
LEAKY_SLOPE = 0.01  # nnU-Net's, and that of the He initialization there
SKIP_START = 1e-5  # V3's shortcuts to the token grid start as nearly nothing


class ConvNorm(nn.Module):
    """Convolution and instance norm, followed by an activation if one is given.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        kernel: edge of the kernel, voxels.
        stride: voxels per axis.
        bias: of the convolution.
        activation: after the norm; None for none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: Triple = (1, 1, 1),
        bias: bool = False,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride, kernel // 2, bias=bias)
        self.norm = nn.InstanceNorm3d(channels_out, affine=True)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C', ... / stride)."""
        return self.activation(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions; the shortcut pools, and projects if the channels change.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        stride: voxels per axis, of the first convolution.
        bias: of the convolutions.
        activation: after the first convolution and after the sum.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: Triple,
        bias: bool,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, channels_out, 3, stride, bias, activation)
        self.conv2 = ConvNorm(channels_out, channels_out, 3, bias=bias)
        self.activation = activation
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(nn.AvgPool3d(stride, stride))
        if channels_in != channels_out:
            shortcut.append(ConvNorm(channels_in, channels_out, 1))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C', ... / stride)."""
        out = self.conv2(self.conv1(x))
        out += self.skip(x)  # in place: the norm before keeps its input, not its output
        return self.activation(out)


class Level(nn.Module):
    """Residual blocks in a row; the first one strides and changes the channels.

    Args:
        channels_in: of the input.
        channels_out: of every block's output.
        depth: number of blocks.
        stride: voxels per axis, of the first block.
        bias: of the convolutions.
        activation: of every block.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        depth: int,
        stride: Triple,
        bias: bool,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(channels_in, channels_out, stride, bias, activation),
            *(
                ResidualBlock(channels_out, channels_out, (1, 1, 1), bias, activation)
                for _ in range(depth - 1)
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C', ... / stride)."""
        return self.blocks(x)


class ResidualStem(nn.Module):
    """A level at full resolution, then one per halving, then a projection to the token width.

    Args:
        input_channels: C.
        embed_dim: D.
        strides: per halving and axis, 1 or 2 (:func:`colipri.architectures.stems.halvings`).
        channels: at full resolution and after each halving.
        depths: residual blocks after each halving.
        activation: used everywhere.
        add_skips: project the features of every level to the token grid and add them (V3).

    Raises:
        ValueError: numbers of channels or depths that do not fit the token patch.
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        strides: Sequence[Triple],
        channels: Sequence[int],
        depths: Sequence[int],
        activation: nn.Module,
        add_skips: bool,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides) + 1 or len(depths) != len(strides):
            raise ValueError(
                f"a token patch with {len(strides)} halvings needs {len(strides) + 1} numbers of "
                f"channels and {len(strides)} depths, not {len(channels)} and {len(depths)}"
            )
        self.stem = Level(input_channels, channels[0], 1, (1, 1, 1), True, activation)
        self.stages = nn.ModuleList(
            Level(channels[i], channels[i + 1], depths[i], stride, False, activation)
            for i, stride in enumerate(strides)
        )
        self.final_proj = nn.Conv3d(channels[-1], embed_dim, 1)
        self.add_skips = add_skips
        if add_skips:
            rest = [_product(strides[level:]) for level in range(len(strides))]
            self.proj_to_tokens = nn.ModuleList(
                nn.Conv3d(width, embed_dim, step, step)
                for width, step in zip(channels[:-1], rest, strict=True)
            )
            self.scale_proj_to_tokens = nn.ParameterList(
                nn.Parameter(torch.tensor(SKIP_START)) for _ in rest
            )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, G0, G1, G2)."""
        x = self.stem(image)
        skips = []
        for level, stage in enumerate(self.stages):
            if self.add_skips:
                projected = self.proj_to_tokens[level](x)
                skips.append(self.scale_proj_to_tokens[level] * projected)
            x = stage(x)
        tokens: Tensor = self.final_proj(x)
        for skip in skips:
            tokens = tokens + skip
        return tokens


def _product(strides: Sequence[Triple]) -> Triple:
    a, b, c = (1, 1, 1)
    for stride in strides:
        a, b, c = a * stride[0], b * stride[1], c * stride[2]
    return a, b, c
