"""Arithmetic of the model, in floating point operations (one multiply-add is two).

Transformer, forward: 24 K d^2 L + 4 K^2 d L for K tokens of width d in L blocks (a SwiGLU MLP of
ratio 8/3 costs what a plain MLP of ratio 4 costs); with windows of W tokens a local block attends
to min(K, W) tokens instead of K. Stems are counted by torch on the meta device, which computes
nothing. Backward costs twice the forward. Tested against torch's own counter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode

from colipri.architectures.stems import build_stem
from colipri.plans.architecture import BertSettings, EncoderSettings

BACKWARD = 3  # forward, and twice as much for the gradients of inputs and weights


def transformer_flops(
    num_tokens: float,
    dim: int,
    depth: int,
    mlp_ratio: float = 8 / 3,
    window_tokens: float | None = None,
    global_blocks: int = 0,
) -> float:
    """Forward FLOPs of ``depth`` blocks on one sample.

    Args:
        num_tokens: K, kept tokens.
        dim: d.
        depth: L.
        mlp_ratio: hidden width of the gated MLP over d (three matrices).
        window_tokens: of a window of local attention, at most; None: all blocks are global.
        global_blocks: blocks that attend to all tokens where the others are local.
    """
    projections = 8 * num_tokens * dim**2
    mlp = 6 * num_tokens * dim * int(dim * mlp_ratio)
    pairs = depth * num_tokens**2
    if window_tokens is not None:  # a body fills its windows, or nearly
        local = num_tokens * min(num_tokens, window_tokens)
        pairs = global_blocks * num_tokens**2 + (depth - global_blocks) * local
    return depth * (projections + mlp) + 4 * pairs * dim


def image_flops(
    encoder: EncoderSettings,
    patch_size: Sequence[int],
    num_tokens: float,
    training: bool = False,
) -> float:
    """Forward FLOPs of the image encoder on one sample, or with ``training`` backward as well.

    A convolutional stem sees the whole patch; a linear one and the transformer see only the kept
    tokens. Nothing needs the gradient of the image, which saves a third in the stem's first layer.

    Args:
        encoder: its sizes, as in a plan.
        patch_size: voxels of the patch along each axis.
        num_tokens: tokens that the transformer sees.
        training: count the backward pass as well.
    """
    local = encoder.attention
    transformer = transformer_flops(
        num_tokens + encoder.num_register_tokens,
        encoder.embed_dim,
        encoder.depth,
        encoder.mlp_ratio,
        None if local is None else prod(local.window),
        0 if local is None else local.global_blocks,
    )
    stem = _stem_flops(
        encoder.stem,
        json.dumps(encoder.stem_options, sort_keys=True),
        encoder.input_channels,
        encoder.embed_dim,
        tuple(encoder.patch_embed_size),
        tuple(patch_size),
        training,
    )
    if encoder.stem == "linear":
        stem *= num_tokens * prod(encoder.patch_embed_size) / prod(patch_size)
    return (BACKWARD * transformer if training else transformer) + stem


def text_flops(bert: BertSettings, num_tokens: float) -> float:
    """Forward FLOPs of a BERT on one text of ``num_tokens`` tokens."""
    dim, hidden = bert.hidden_size, bert.intermediate_size
    return bert.num_hidden_layers * (
        8 * num_tokens * dim**2 + 4 * num_tokens**2 * dim + 4 * num_tokens * dim * hidden
    )


def pool_flops(num_tokens: float, dim: int, input_dim: int | None = None) -> float:
    """Count forward FLOPs of attention pooling and of the projection before it.

    Args:
        num_tokens: tokens that are pooled.
        dim: width of the pool.
        input_dim: width of the tokens before the projection; None for no projection.
    """
    projection = 0.0 if input_dim is None else 2 * num_tokens * input_dim * dim
    return projection + 4 * num_tokens * dim**2 + 4 * dim**2 + 4 * num_tokens * dim


def report_decoder_flops(
    num_tokens: float,
    image_tokens: float,
    dim: int,
    depth: int,
    image_dim: int,
    vocabulary_size: int,
) -> float:
    """Forward FLOPs of the report decoder and its output layer on one report (objective R).

    Args:
        num_tokens: of the report.
        image_tokens: that cross-attention looks at.
        dim, depth: of the decoder.
        image_dim: width of the image encoder.
        vocabulary_size: of the output layer.
    """
    text = 28 * num_tokens * dim**2 + 4 * num_tokens**2 * dim
    image = 4 * image_tokens * dim**2 + 4 * num_tokens * image_tokens * dim
    ends = 2 * image_tokens * image_dim * dim + 2 * num_tokens * dim * vocabulary_size
    return depth * (text + image) + ends


def masked_decoder_flops(
    visible: float, masked: float, encoder_dim: int, patch_voxels: int, dim: int, depth: int
) -> float:
    """Count forward FLOPs of the decoder that predicts masked patches (objective M).

    Args:
        visible: tokens that the encoder saw.
        masked: tokens that are predicted.
        encoder_dim: width of the encoder's tokens.
        patch_voxels: voxels of a token times channels.
        dim: width of the decoder.
        depth: its blocks.
    """
    ends = 2 * visible * encoder_dim * dim + 2 * masked * dim * patch_voxels
    return transformer_flops(visible + masked, dim, depth) + ends


@lru_cache(maxsize=16)
def _stem_flops(
    stem: str,
    options: str,
    input_channels: int,
    embed_dim: int,
    token_patch: tuple[int, ...],
    patch_size: tuple[int, ...],
    training: bool,
) -> float:
    with torch.device("meta"):
        built = build_stem(stem, input_channels, embed_dim, token_patch, json.loads(options))
        image = torch.zeros(1, input_channels, *patch_size)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        tokens = built(image)
        if training:
            tokens.sum().backward()
    return float(counter.get_total_flops())
