"""A small residual network as stem: most of what small machines learn, they learn in it.

The image is cut into blocks of 2 x 2 x 2 voxels, whose values become channels: nothing is lost, and
the first convolution already works at half the resolution, where a CPU is eight times as fast.
Residual blocks halve the resolution until one place is one token; one more level at twice the size
of a token shows each token its surroundings, for which a shallow transformer would need more
training than small machines can give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colipri.architectures.residual_stems import ConvNorm, Level, Triple


class ResNetStem(nn.Module):
    """Blocks of voxels, a convolution, residual blocks, and a level of surroundings.

    A token is the features of its place and those of its surroundings, side by side. They are
    results of a ReLU: each says how much of one thing there is, so that the largest value over a
    scan, which pooling takes, is meaningful for each.

    Args:
        input_channels: C.
        embed_dim: D; the features are projected to it if there are not so many:
            3 * base_features * 2 ** (halvings - 1).
        strides: per halving and axis, 1 or 2 (:func:`colipri.architectures.stems.halvings`).
        base_features: channels after the first halving; twice as many after each further one.
        depth_per_level: residual blocks after each halving but the first, and of the surroundings.

    Raises:
        ValueError: numbers of blocks that do not fit the token patch.
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        strides: Sequence[Triple],
        base_features: int = 24,
        depth_per_level: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        depths = [1] * len(strides) if depth_per_level is None else list(depth_per_level)
        if not strides or len(depths) != len(strides):
            raise ValueError(
                f"a token patch with {len(strides)} halvings needs as many numbers of residual "
                f"blocks, at least one, not {len(depths)}"
            )
        relu = nn.ReLU(inplace=True)
        self.stem = ConvNorm(input_channels, base_features, 3, activation=relu)
        self.stem.conv = BlockConvolution(input_channels, base_features, strides[0])
        width = base_features
        self.stages = nn.ModuleList()
        for stride, depth in zip(strides[1:], depths, strict=False):
            self.stages.append(Level(width, 2 * width, depth, stride, False, relu))
            width *= 2
        self.surroundings = Level(width, 2 * width, depths[-1], (2, 2, 2), False, relu)
        self.proj = nn.Identity() if embed_dim == 3 * width else nn.Conv3d(3 * width, embed_dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, D, G0, G1, G2)."""
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        tokens: Tensor = self.proj(torch.cat([x, self._around(x)], dim=1))
        return tokens

    def _around(self, x: Tensor) -> Tensor:
        """(B, C, G0, G1, G2) -> (B, 2 C, G0, G1, G2), the same in blocks of 2 x 2 x 2 tokens."""
        a, b, c = x.shape[2:]
        if max(a, b, c) <= 2:  # a norm over one value would only erase it
            return x.new_zeros(len(x), 2 * x.shape[1], a, b, c)
        even = F.pad(x, (0, c % 2, 0, b % 2, 0, a % 2), mode="replicate")
        around = F.interpolate(self.surroundings(even), scale_factor=2, mode="nearest")
        return around[:, :, :a, :b, :c]


class BlockConvolution(nn.Conv3d):
    """A convolution over blocks of voxels, three blocks wide; it has an output for each block.

    Its weight (C', C, 3 b0, 3 b1, 3 b2) is that of a convolution of the image with the block as
    stride and padding, and so are its numbers; blocks as channels are what CPUs compute faster.

    Args:
        channels_in: C.
        channels_out: C'.
        block: voxels per axis.
    """

    def __init__(self, channels_in: int, channels_out: int, block: Triple) -> None:
        a, b, c = block
        super().__init__(channels_in, channels_out, (3 * a, 3 * b, 3 * c), block, block, bias=False)
        self.block = block

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, A0, A1, A2) -> (B, C', A0 / b0, A1 / b1, A2 / b2)."""
        weight = blocks_as_channels(self.weight, self.block)
        return F.conv3d(blocks_as_channels(image, self.block), weight, padding=1)


def blocks_as_channels(image: Tensor, block: Triple) -> Tensor:
    """(B, C, A0, A1, A2) -> (B, C * b0 * b1 * b2, A0 / b0, A1 / b1, A2 / b2)."""
    x = image
    for axis, size in zip((2, 4, 6), block, strict=True):
        x = x.unflatten(axis, (-1, size))
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
