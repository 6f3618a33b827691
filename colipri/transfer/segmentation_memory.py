"""Memory of fine-tuning: the encoder by colipri.cost.memory, plus the decoder.

Decoders keep, per voxel of a level, a fixed number of values per channel for the backward pass;
tests/transfer/test_segmentation_memory.py counts them with saved-tensor hooks and allows 10 %.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch

from colipri.architectures.stems import halvings
from colipri.cost.memory import (
    BYTES_PER_PARAMETER,
    OVERHEAD_BYTES,
    block_activation_bytes,
    live_block_bytes,
    stem_activation_bytes,
)
from colipri.transfer.segmentation_network import PrimusSegmentation

VALUE_BYTES = {"bf16": 2, "cpu_bf16": 2, "fp32": 4}
# Per voxel and channel of a level. dense: convolution out and activation out, of the detail and of
# the merged features, and their concatenation; patch: inputs of norm, activation and next layer.
DENSE_VALUES = 6
PATCH_VALUES = 3
# Inputs of a depth's norm and of its projection, per token and channel.
TOKEN_VALUES = 2
# nnU-Net's Dice and cross entropy in fp32, per voxel and class: logits, softmax, log softmax and
# their gradients meet at the peak.
LOSS_BYTES = 24


@dataclass(frozen=True)
class SegmentationMemory:
    """Bytes of one training step.

    Attributes:
        fixed: weights, gradients, optimizer, context and workspaces.
        per_patch: activations of one patch of the batch, by where they arise.
        batch_size: patches at once.
    """

    fixed: float
    per_patch: dict[str, float]
    batch_size: int

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.fixed + self.batch_size * sum(self.per_patch.values())


def decoder_activation_bytes(
    decoder: dict[str, Any],
    embed_dim: int,
    depth: int,
    token_patch: Sequence[int],
    patch_size: Sequence[int],
    precision: str,
) -> float:
    """Return the bytes that a decoder keeps for the backward pass, per sample, without the loss.

    Args:
        decoder: Arguments of ``build_decoder``.
        embed_dim: Width of a token.
        depth: Blocks of the transformer.
        token_patch: Voxels of a token per axis.
        patch_size: Voxels per axis.
        precision: See colipri.cost.memory.
    """
    voxels = float(prod(patch_size))
    strides = halvings(token_patch)
    values = 0.0
    if decoder.get("kind", "dense") == "patch":
        ratio = (embed_dim / 8) ** (1 / len(strides))
        for level in range(1, len(strides)):
            voxels = voxels / prod(strides[level - 1])
            width = max(8, round(embed_dim / ratio ** (len(strides) - level)))
            values += PATCH_VALUES * width * voxels
        return VALUE_BYTES[precision] * values
    width = decoder.get("base_features", 16)
    for stride in strides:
        values += DENSE_VALUES * width * voxels
        voxels, width = voxels / prod(stride), 2 * width
    num_depths = min(decoder.get("num_depths", 4), depth)
    values += (TOKEN_VALUES * num_depths * embed_dim + width) * voxels
    return VALUE_BYTES[precision] * values


def estimate_segmentation_memory(
    arch_kwargs: dict[str, Any],
    patch_size: Sequence[int],
    batch_size: int,
    input_channels: int,
    num_classes: int,
    precision: str = "bf16",
) -> SegmentationMemory:
    """Estimate the memory of a training step of nnU-Net with our network.

    Args:
        arch_kwargs: of :class:`PrimusSegmentation`, as in the plan.
        patch_size: voxels per axis.
        batch_size: patches a step.
        input_channels, num_classes: of the data set.
        precision: of colipri.cost.memory; nnU-Net's fp16 is as large as bf16.
    """
    encoder = arch_kwargs["encoder"]
    token_patch = encoder.get("patch_embed_size", (8, 8, 8))
    voxels = prod(patch_size)
    tokens = voxels / prod(token_patch)
    dim, depth = encoder["embed_dim"], encoder["depth"]
    checkpointing = encoder.get("activation_checkpointing", "none")
    parts = {
        "stem": stem_activation_bytes(
            encoder.get("stem", "linear"),
            encoder.get("stem_kwargs") or {},
            voxels,
            precision,
            input_channels,
            dim,
            token_patch,
        ),
        "blocks": block_activation_bytes(tokens, dim, depth, precision, checkpointing),
        "recomputed_block": live_block_bytes(tokens, dim, precision, checkpointing),
        "decoder": decoder_activation_bytes(
            arch_kwargs["decoder"], dim, depth, token_patch, patch_size, precision
        ),
        # deep supervision adds an eighth and a sixty-fourth
        "loss": LOSS_BYTES * num_classes * voxels * 1.15,
        # in float32 on the device, and the labels
        "image": voxels * (4.0 * input_channels + 4.0),
    }
    parameters = _num_parameters(
        json.dumps(arch_kwargs, sort_keys=True), input_channels, num_classes
    )
    return SegmentationMemory(
        fixed=parameters * BYTES_PER_PARAMETER[precision] + OVERHEAD_BYTES,
        per_patch=parts,
        batch_size=batch_size,
    )


@lru_cache(maxsize=64)
def _num_parameters(arch_kwargs: str, input_channels: int, num_classes: int) -> int:
    """Parameters of the whole network, counted on the meta device (nothing is allocated)."""
    with torch.device("meta"):
        network = PrimusSegmentation(input_channels, num_classes, True, **json.loads(arch_kwargs))
    return sum(parameter.numel() for parameter in network.parameters())
