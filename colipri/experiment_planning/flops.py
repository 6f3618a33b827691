"""Arithmetic of the model, in floating point operations (one multiply-add is two).

Transformer, forward: 24 K d^2 L + 4 K^2 d L for K tokens of width d in L blocks (a SwiGLU MLP of
ratio 8/3 costs what a plain MLP of ratio 4 costs). Stems are counted by torch on the meta device,
which computes nothing. Backward costs twice the forward. Tested against torch's own counter.
"""

from __future__ import annotations

import json
from functools import lru_cache
from math import prod
from typing import Any


def transformer_flops(num_tokens: float, dim: int, depth: int, mlp_ratio: float = 8 / 3) -> float:
    """Forward FLOPs of ``depth`` blocks on one sample.

    Args:
        num_tokens: K, kept tokens.
        dim: d.
        depth: L.
        mlp_ratio: hidden width of the gated MLP over d (three matrices).
    """
    projections = 8 * num_tokens * dim**2
    attention = 4 * num_tokens**2 * dim
    mlp = 6 * num_tokens * dim * int(dim * mlp_ratio)
    return depth * (projections + attention + mlp)


def image_flops(arch_kwargs: dict[str, Any], patch_size: list[int], num_tokens: float) -> float:
    """Forward FLOPs of the image encoder on one sample.

    The stem sees the whole patch, the transformer only the kept tokens.
    """
    registers = arch_kwargs.get("num_register_tokens", 0)
    transformer = transformer_flops(
        num_tokens + registers,
        arch_kwargs["embed_dim"],
        arch_kwargs["depth"],
        arch_kwargs.get("mlp_ratio", 8 / 3),
    )
    return transformer + _stem_flops(json.dumps(arch_kwargs, sort_keys=True), tuple(patch_size))


def text_flops(arch_kwargs: dict[str, Any], num_tokens: float) -> float:
    """Forward FLOPs of a BERT on one text of ``num_tokens`` tokens."""
    dim = arch_kwargs.get("hidden_size", 768)
    hidden = arch_kwargs.get("intermediate_size", 3072)
    depth = arch_kwargs.get("num_hidden_layers", 12)
    return depth * (
        8 * num_tokens * dim**2 + 4 * num_tokens**2 * dim + 4 * num_tokens * dim * hidden
    )


def num_grid_tokens(configuration: dict[str, Any]) -> int:
    """Tokens of a whole patch, air included."""
    pairs = zip(configuration["patch_size"], configuration["token_patch_size"], strict=True)
    return prod(size // token for size, token in pairs)


def training_flops_per_sample(
    configuration: dict[str, Any], num_tokens: float | None = None
) -> float:
    """Forward and backward of both towers on one pair; recomputation is not counted.

    Args:
        configuration: of the plan.
        num_tokens: image tokens that the encoder saw; None for the whole grid.
    """
    tokens = num_grid_tokens(configuration) if num_tokens is None else num_tokens
    image = image_flops(
        configuration["architecture"]["arch_kwargs"], configuration["patch_size"], tokens
    )
    text = text_flops(
        configuration["text_encoder"].get("arch_kwargs") or {}, configuration["max_text_tokens"]
    )
    return 3 * (image + text)


@lru_cache(maxsize=16)
def _stem_flops(arch_kwargs: str, patch_size: tuple[int, ...]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from colipri.architectures.stems import build_stem

    settings = json.loads(arch_kwargs)
    with torch.device("meta"):
        stem = build_stem(
            settings.get("stem", "linear"),
            settings["input_channels"],
            settings["embed_dim"],
            settings.get("patch_embed_size", (8, 8, 8)),
            settings.get("stem_kwargs") or {},
        )
        image = torch.zeros(1, settings["input_channels"], *patch_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stem(image)
    return float(counter.get_total_flops())
