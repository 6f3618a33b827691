"""How much accelerator memory a training step needs, as a formula.

    total = fixed + micro batch * (stem + blocks + heads + text + decoder + image + live block)

The constants are bytes that autograd keeps per token and channel. They follow from the layers (see
documentation/plans_explained.md) and are counted again by tests/experiment_planning/test_memory.py
with saved-tensor hooks, which allows 10 %. Attention is computed by memory-efficient kernels, so
nothing of the image tower grows with the square of the tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch

from colipri.architectures.stems import build_stem
from colipri.cost.stem_memory import pooled_values_per_voxel, stem_values_per_voxel
from colipri.plans.architecture import BertSettings, GlobalTransformerPlan
from colipri.plans.plans import Configuration

GIB = 1024**3

# Under bf16 autocast, norms on CUDA work in fp32 and keep an fp32 input and the bf16 copy of their
# output, on CPUs they stay in bf16. Plans are for "bf16", which is CUDA's, whatever the machine
# that plans; the others are for runs on CPUs and for tests.
PRECISIONS = ("bf16", "cpu_bf16", "fp32")
PLANNED_PRECISION = "bf16"

# Bytes per token, channel and block, by checkpointing: everything, without the MLP half, only the
# block's input.
BLOCK_BYTES = {
    "bf16": {"none": 52.8, "mlp": 24.1, "full": 4.0},
    "cpu_bf16": {"none": 43.4, "mlp": 20.1, "full": 4.0},
    "fp32": {"none": 78.8, "mlp": 32.1, "full": 4.0},
}
# Final norm and projector per channel of the encoder; projector, keys and values of the attention
# pool per channel of the shared space. Bytes per token.
HEAD_BYTES = {"bf16": (6.0, 6.0), "cpu_bf16": (6.0, 6.0), "fp32": (8.0, 12.0)}
# BERT: bytes per token and channel, for each block (MLP of ratio 4, dropout masks) and once for
# embeddings and pool; and bytes per pair of tokens, head and block, where attention with dropout
# has no memory-efficient kernel (on CPUs).
TEXT_BLOCK_BYTES = {"bf16": 41.8, "cpu_bf16": 50.0, "fp32": 72.2}
TEXT_ONCE_BYTES = {"bf16": 14.2, "cpu_bf16": 16.0, "fp32": 20.0}
TEXT_PAIR_BYTES = {"bf16": 0.0, "cpu_bf16": 12.0, "fp32": 12.0}
# Of the stem's numbers, and of what enters average pools, which autocast on CPUs copies to fp32.
STEM_VALUE_BYTES = {"bf16": 2, "cpu_bf16": 2, "fp32": 4}
POOLED_VALUE_BYTES = {"bf16": 0, "cpu_bf16": 4, "fp32": 0}
# The image itself, per voxel and channel: int16 as loaded, float32 as normalised and augmented.
IMAGE_BYTES = 2 + 4

# Adam in fp32: weight, gradient, two moments; under autocast a bf16 copy of each weight as well.
BYTES_PER_PARAMETER = {"bf16": 18, "cpu_bf16": 18, "fp32": 16}
# The moving average of the weights (training.ema_decay), in fp32.
AVERAGE_BYTES = 4
# Weights that are not optimized (a teacher's): fp32, and under autocast a bf16 copy.
BYTES_PER_FROZEN_PARAMETER = {"bf16": 6, "cpu_bf16": 6, "fp32": 4}
# CUDA context, cuBLAS and cuDNN workspaces, allocator fragmentation: what nvidia-smi shows beyond
# the tensors; a constant, because it depends on neither model nor batch.
OVERHEAD_BYTES = 1.25 * GIB
# Plans use this share of the target, so that a driver update or a larger text does not end a run.
SAFETY = 0.9


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training step.

    Attributes:
        parameters: weights, gradients, optimiser and bf16 copies.
        overhead: context and workspaces.
        per_sample: activations of one pair of the micro batch, and its image.
        live: what one block needs while it is recomputed, per sample (0 without recomputation).
        micro_batch_size: pairs at once.
        parts: of ``per_sample``, by where they arise.
        num_tokens: image tokens of a pair that are counted.
    """

    parameters: float
    overhead: float
    per_sample: float
    live: float
    micro_batch_size: int
    parts: dict[str, float] = field(default_factory=dict)
    num_tokens: float = 0.0

    @property
    def total(self) -> float:
        """Bytes in all."""
        activations = self.micro_batch_size * (self.per_sample + self.live)
        return self.parameters + self.overhead + activations

    def as_gigabytes(self) -> dict[str, Any]:
        """Return plain data for plans, in GiB."""
        values = {
            "total": self.total,
            "parameters": self.parameters,
            "overhead": self.overhead,
            "per_sample": self.per_sample,
            "live": self.live,
        }
        return {
            **{f"{name}_in_gb": round(value / GIB, 3) for name, value in values.items()},
            "tokens_per_sample": round(self.num_tokens),
            "parts_of_a_sample_in_gb": {k: round(v / GIB, 4) for k, v in self.parts.items()},
        }


def transformer_parameters(dim: int, depth: int, mlp_ratio: float = 8 / 3) -> int:
    """Count parameters of the image transformer's blocks and final norm.

    Args:
        dim: width of a token.
        depth: blocks.
        mlp_ratio: hidden width of the MLP over ``dim``.
    """
    hidden = int(dim * mlp_ratio)
    attention = 4 * dim * dim + 3 * dim + 2 * dim
    mlp = 3 * dim * hidden + 2 * hidden + dim + 2 * hidden
    return depth * (attention + mlp + 4 * dim + 2 * dim) + 2 * dim


def block_activation_bytes(
    num_tokens: float, dim: int, depth: int, precision: str, checkpointing: str
) -> float:
    """Return the bytes that the blocks keep for the backward pass, per image.

    Args:
        num_tokens: of an image.
        dim: width of a token.
        depth: blocks.
        precision: "bf16" or "fp32".
        checkpointing: "none", "mlp" or "full".
    """
    return BLOCK_BYTES[precision][checkpointing] * num_tokens * dim * depth


def live_block_bytes(num_tokens: float, dim: int, precision: str, checkpointing: str) -> float:
    """Return the bytes of the one block (or MLP half) that is recomputed at a time, per image.

    Args:
        num_tokens: of an image.
        dim: width of a token.
        precision: "bf16" or "fp32".
        checkpointing: "none", "mlp" or "full".
    """
    table = BLOCK_BYTES[precision]
    return (table["none"] - table[checkpointing]) * num_tokens * dim


def stem_activation_bytes(
    stem: str,
    stem_kwargs: dict[str, Any],
    num_voxels: float,
    precision: str,
    input_channels: int = 1,
    embed_dim: int = 864,
    patch: Sequence[int] = (8, 8, 8),
) -> float:
    """Return the bytes that the stem keeps for the backward pass, per image.

    Args:
        stem: name of the stem.
        stem_kwargs: its options.
        num_voxels: of the patch.
        precision: "bf16" or "fp32".
        input_channels: of the image.
        embed_dim: width of a token.
        patch: voxels of a token per axis.
    """
    values = stem_values_per_voxel(stem, stem_kwargs, input_channels, embed_dim, patch)
    pooled = pooled_values_per_voxel(stem, stem_kwargs, patch)
    per_voxel = values * STEM_VALUE_BYTES[precision] + pooled * POOLED_VALUE_BYTES[precision]
    return num_voxels * per_voxel


def text_activation_bytes(bert: BertSettings, num_tokens: int, precision: str) -> float:
    """Return the bytes that a BERT and its pool keep for the backward pass, per text.

    Args:
        bert: sizes of the text encoder.
        num_tokens: of a text.
        precision: "bf16" or "fp32".
    """
    dim, depth, heads = bert.hidden_size, bert.num_hidden_layers, bert.num_attention_heads
    linear = (TEXT_BLOCK_BYTES[precision] * depth + TEXT_ONCE_BYTES[precision]) * num_tokens * dim
    return linear + TEXT_PAIR_BYTES[precision] * num_tokens**2 * heads * depth


def activation_parts(
    configuration: Configuration,
    precision: str = PLANNED_PRECISION,
    num_tokens: float | None = None,
) -> dict[str, float]:
    """Return the bytes that autograd keeps for one pair in the two towers: stem, blocks, heads,
    text.

    Args:
        configuration: of a plan.
        precision: one of PRECISIONS.
        num_tokens: image tokens of a pair; None for all of the patch, although air is dropped.
    """
    encoder = configuration.encoder
    tokens = configuration.num_tokens if num_tokens is None else num_tokens
    encoder_bytes, shared_bytes = HEAD_BYTES[precision]
    return {
        "stem": stem_activation_bytes(
            encoder.stem,
            encoder.stem_options,
            prod(configuration.patch_size),
            precision,
            encoder.input_channels,
            encoder.embed_dim,
            configuration.token_patch_size,
        ),
        "blocks": block_activation_bytes(
            tokens,
            encoder.embed_dim,
            encoder.depth,
            precision,
            configuration.activation_checkpointing,
        ),
        "heads": tokens
        * (encoder_bytes * encoder.embed_dim + shared_bytes * configuration.embed_dim),
        "text": text_activation_bytes(
            configuration.text_encoder.bert, configuration.max_text_tokens, precision
        ),
    }


def text_parameters(bert: BertSettings, vocabulary_size: int) -> int:
    """Return the parameters of a BERT without pooler, and of the attention pool behind it."""
    dim, hidden = bert.hidden_size, bert.intermediate_size
    block = 4 * dim * dim + 4 * dim + 2 * dim * hidden + dim + hidden + 4 * dim
    embeddings = (vocabulary_size + bert.max_position_embeddings + 2 + 2) * dim
    return embeddings + bert.num_hidden_layers * block + 4 * dim * dim + 4 * dim


def estimate_memory(
    configuration: Configuration,
    precision: str = PLANNED_PRECISION,
    objective_bytes: Mapping[str, float] | None = None,
    objective_parameters: int = 0,
    num_tokens: float | None = None,
    frozen_parameters: int = 0,
) -> MemoryEstimate:
    """Estimate the memory of a training step of one plan configuration.

    Args:
        configuration: of a plan.
        precision: one of PRECISIONS.
        objective_bytes: what objectives keep for a pair beside the towers, by their names.
        objective_parameters: trained parameters of the objectives' heads.
        num_tokens: image tokens of a pair; None for all of the patch.
        frozen_parameters: of the objectives' heads.
    """
    encoder = configuration.encoder
    voxels = prod(configuration.patch_size)
    tokens = configuration.num_tokens if num_tokens is None else num_tokens
    parts = activation_parts(configuration, precision, tokens)
    parts |= objective_bytes or {}
    parts["image"] = float(voxels * encoder.input_channels * IMAGE_BYTES)
    parameters = model_parameters(configuration) + objective_parameters
    averaged = 0 if configuration.training.ema_decay is None else AVERAGE_BYTES
    return MemoryEstimate(
        parameters=parameters * (BYTES_PER_PARAMETER[precision] + averaged)
        + frozen_parameters * BYTES_PER_FROZEN_PARAMETER[precision],
        overhead=OVERHEAD_BYTES,
        per_sample=sum(parts.values()),
        live=live_block_bytes(
            tokens,
            encoder.embed_dim,
            precision,
            configuration.activation_checkpointing,
        ),
        micro_batch_size=configuration.micro_batch_size,
        parts=parts,
        num_tokens=tokens,
    )


def model_parameters(configuration: Configuration) -> int:
    """Return the parameters of both towers, projector, pools and temperature."""
    encoder, bert = configuration.encoder, configuration.text_encoder.bert
    dim, shared = encoder.embed_dim, configuration.embed_dim
    projector = dim * shared + shared
    pool = 4 * shared * shared + 4 * shared
    if configuration.pool == "mean_max":
        pool = 2 * shared * shared + shared
    elif configuration.pool_add_max:
        pool += shared * shared + shared
    projection = 0 if bert.hidden_size == shared else bert.hidden_size * shared + shared
    whole = configuration.global_transformer
    return (
        transformer_parameters(dim, encoder.depth, encoder.mlp_ratio)
        + (0 if whole is None else global_transformer_parameters(dim, whole))
        + stem_parameters(configuration)
        + text_parameters(bert, configuration.text_encoder.vocabulary_size)
        + projector
        + pool
        + configuration.pool_queries * shared
        + projection
        + 2  # temperature and bias
    )


def global_transformer_parameters(dim: int, plan: GlobalTransformerPlan) -> int:
    """Return the parameters of a :class:`colipri.architectures.global_transformer`."""
    hidden = int(dim * plan.mlp_ratio)
    block = 4 * dim * dim + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim
    return plan.num_layers * block + 3 * plan.cells_per_axis * dim


def stem_parameters(configuration: Configuration) -> int:
    """Return the parameters of the stem, counted on the meta device (nothing is allocated)."""
    encoder = configuration.encoder
    return _stem_parameters(
        encoder.stem,
        encoder.input_channels,
        encoder.embed_dim,
        tuple(configuration.token_patch_size),
        json.dumps(encoder.stem_options, sort_keys=True),
    )


@cache  # planning asks dozens of times
def _stem_parameters(
    name: str, input_channels: int, embed_dim: int, patch: tuple[int, ...], options: str
) -> int:
    with torch.device("meta"):
        stem = build_stem(name, input_channels, embed_dim, patch, json.loads(options))
    return sum(parameter.numel() for parameter in stem.parameters())
