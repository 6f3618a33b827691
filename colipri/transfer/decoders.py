"""Segmentation decoders behind a pretrained encoder: everything in them starts from scratch.

``patch`` is Primus' plain one (arXiv 2503.01835): transposed convolutions from the last tokens, no
convolution at full resolution. ``dense`` fuses tokens of several depths (shallow blocks keep what
deep ones have abstracted away; DPT, arXiv 2103.13413) and refines them with a thin convolutional
pyramid of the image itself, because a token of 8 voxels cannot say where inside it a border runs
(UNETR, arXiv 2103.10504). Both give an output per level for deep supervision, finest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colipri.architectures.residual_stems import LEAKY_SLOPE, Triple

DECODERS = ("dense", "patch")
SMALLEST_WIDTH = 8


class PatchLayers(nn.Module):
    """Transposed convolutions from the token grid to the voxels; widths shrink geometrically.

    Args:
        embed_dim: D of the tokens.
        strides: from voxels to tokens (colipri.architectures.stems.halvings).
        num_classes: output channels.
    """

    num_depths = 1

    def __init__(self, embed_dim: int, strides: Sequence[Triple], num_classes: int) -> None:
        super().__init__()
        levels = len(strides)
        ratio = (embed_dim / SMALLEST_WIDTH) ** (1 / levels)
        # widths[l] at level l (0: voxels, which get classes at once)
        widths = [
            max(SMALLEST_WIDTH, round(embed_dim / ratio ** (levels - n))) for n in range(levels)
        ]
        widths.append(embed_dim)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose3d(widths[n + 1], widths[n], strides[n], strides[n]),
                nn.GroupNorm(1, widths[n]),
                nn.GELU(),
            )
            for n in range(1, levels)
        )
        self.heads = nn.ModuleList(nn.Conv3d(widths[n], num_classes, 1) for n in range(1, levels))
        self.last = nn.ConvTranspose3d(widths[1], num_classes, strides[0], strides[0])
        _initialize(self)

    def forward(self, image: Tensor, tokens: list[Tensor], all_levels: bool) -> list[Tensor]:
        """Map the tokens of the last block (B, D, G0, G1, G2) to logits per level, finest first.

        Args:
            image: (B, C, A0, A1, A2); only its size counts here.
            tokens: One map (B, D, G0, G1, G2) per depth.
            all_levels: False for full resolution alone.
        """
        del image
        x = tokens[-1]
        coarse: list[Tensor] = []
        for up, head in zip(reversed(self.up), reversed(self.heads), strict=True):
            x = up(x)
            if all_levels:
                coarse.append(head(x))
        return [self.last(x), *reversed(coarse)]


class DenseLayers(nn.Module):
    """Fused tokens of several depths, upsampled and merged with a thin pyramid of the image.

    Args:
        input_channels: C of the image.
        embed_dim: D of the tokens.
        strides: from voxels to tokens.
        num_classes: output channels.
        num_depths: how many depths of the transformer are fused.
        base_features: channels at full resolution; they double with every halving.
    """

    def __init__(
        self,
        input_channels: int,
        embed_dim: int,
        strides: Sequence[Triple],
        num_classes: int,
        num_depths: int = 4,
        base_features: int = 16,
    ) -> None:
        super().__init__()
        self.num_depths = num_depths
        levels = len(strides)
        widths = [base_features * 2**n for n in range(levels + 1)]
        self.norms = nn.ModuleList(nn.GroupNorm(1, embed_dim) for _ in range(num_depths))
        self.fuse = nn.ModuleList(nn.Conv3d(embed_dim, widths[-1], 1) for _ in range(num_depths))
        self.detail = nn.ModuleList(
            _convolution(input_channels, widths[0], (1, 1, 1))
            if n == 0
            else _convolution(widths[n - 1], widths[n], strides[n - 1])
            for n in range(levels)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(widths[n + 1], widths[n], strides[n], strides[n])
            for n in range(levels)
        )
        self.merge = nn.ModuleList(
            _convolution(2 * widths[n], widths[n], (1, 1, 1)) for n in range(levels)
        )
        self.heads = nn.ModuleList(nn.Conv3d(widths[n], num_classes, 1) for n in range(levels))
        _initialize(self)

    def forward(self, image: Tensor, tokens: list[Tensor], all_levels: bool) -> list[Tensor]:
        """Map image (B, C, ...) and tokens of num_depths depths to logits per level, finest first.

        Args:
            image: (B, C, A0, A1, A2).
            tokens: One map (B, D, G0, G1, G2) per depth.
            all_levels: False for full resolution alone.
        """
        details = [image]
        for detail in self.detail:
            details.append(detail(details[-1]))
        fused = [
            fuse(norm(depth))
            for fuse, norm, depth in zip(self.fuse, self.norms, tokens, strict=True)
        ]
        x = torch.stack(fused).sum(dim=0) if len(fused) > 1 else fused[0]
        logits: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat((self.up[level](x), details[level + 1]), dim=1))
            if all_levels or level == 0:
                logits.append(self.heads[level](x))
        return logits[::-1]


class SegmentationDecoder(nn.Module):
    """What nnU-Net expects of a decoder: a switch for deep supervision.

    All weights are under ``seg_layers``: nnU-Net's loader of pretrained weights asks for every key
    of a network except those that contain ``.seg_layers.``.
    """

    def __init__(self, layers: PatchLayers | DenseLayers, deep_supervision: bool) -> None:
        super().__init__()
        self.seg_layers = layers
        self.deep_supervision = deep_supervision

    def forward(self, image: Tensor, tokens: list[Tensor]) -> Tensor | list[Tensor]:
        """Return the logits at full resolution, or with deep supervision a list of them, finest
        first.
        """
        logits: list[Tensor] = self.seg_layers(image, tokens, self.deep_supervision)
        return logits if self.deep_supervision else logits[0]


def build_decoder(
    kind: str,
    input_channels: int,
    embed_dim: int,
    depth: int,
    strides: Sequence[Triple],
    num_classes: int,
    deep_supervision: bool,
    base_features: int = 16,
    num_depths: int = 4,
) -> SegmentationDecoder:
    """Build a decoder by the name that plans use.

    Args:
        kind: One of DECODERS.
        input_channels: Of the image.
        embed_dim: Width of a token.
        depth: Blocks of the transformer.
        strides: From voxels to tokens (colipri.architectures.stems.halvings).
        num_classes: Output channels.
        deep_supervision: Also return the outputs of coarser levels.
        base_features, num_depths: of "dense" (see :class:`DenseLayers`).

    Raises:
        ValueError: unknown kind.
    """
    if kind == "patch":
        return SegmentationDecoder(PatchLayers(embed_dim, strides, num_classes), deep_supervision)
    if kind == "dense":
        dense = DenseLayers(
            input_channels,
            embed_dim,
            strides,
            num_classes,
            min(num_depths, depth),
            base_features,
        )
        return SegmentationDecoder(dense, deep_supervision)
    raise ValueError(f"unknown decoder '{kind}'; known: {', '.join(DECODERS)}")


def _convolution(channels_in: int, channels_out: int, stride: Triple) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.InstanceNorm3d(channels_out, affine=True),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    )


def _initialize(module: nn.Module) -> None:
    """He initialization, nnU-Net's for convolutions."""
    for part in module.modules():
        if isinstance(part, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(part.weight, a=LEAKY_SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
