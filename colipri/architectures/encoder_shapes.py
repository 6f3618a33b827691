"""Arguments of PrimusEncoder read from the shapes of foreign weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from colipri.architectures.encoder_fitting import stem_of
from colipri.common.errors import ColipriError

_STEM = "down_projection."


def describe_encoder(
    weights: Mapping[str, Tensor], num_heads: int | None, position_grid: Sequence[int] | None
) -> dict[str, Any]:
    """Arguments, without ``input_channels``, of an encoder that takes these weights.

    Args:
        weights: by the names of PrimusEncoder.
        num_heads: of its attention; weights do not show them.
        position_grid: tokens per axis of its absolute position embedding, if it has one.

    Raises:
        ColipriError: unknown heads, or a stem that none of these projects builds.
    """
    width = len(weights["eva.norm.weight"])
    if num_heads is None:
        raise ColipriError(f"an encoder {width} wide is no Primus S, B, M or L: heads are unknown")
    stem = stem_of(weights)
    registers = weights.get("register_tokens")
    return {
        "embed_dim": width,
        "depth": len({name.split(".")[2] for name in weights if name.startswith("eva.blocks.")}),
        "num_heads": num_heads,
        "patch_embed_size": _token_patch(weights, stem),
        "stem": stem,
        "stem_kwargs": _stem_arguments(weights, stem),
        "drop_path_rate": 0.2,  # nnU-Net's for Primus
        "init_values": 0.1 if "eva.blocks.0.gamma_1" in weights else None,
        "scale_attn_inner": "eva.blocks.0.attn.norm.weight" in weights,
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "position_grid": None if position_grid is None else list(position_grid),
        "activation_checkpointing": "none",
    }


def _token_patch(weights: Mapping[str, Tensor], stem: str) -> list[int]:
    if stem in ("v2", "v3"):
        return [2 ** len(_levels(weights))] * 3  # both halve all axes
    kernel = weights.get(f"{_STEM}proj.weight")
    if stem != "linear" or kernel is None or kernel.ndim != 5:
        raise ColipriError("its stem is none of Primus', PrimusV2's or PrimusV3's")
    return list(kernel.shape[2:])


def _stem_arguments(weights: Mapping[str, Tensor], stem: str) -> dict[str, Any]:
    if stem == "linear":
        return {}
    levels = _levels(weights)
    blocks = [
        len({n.split(".")[4] for n in weights if n.startswith(f"{_STEM}stages.{level}.blocks.")})
        for level in range(len(levels))
    ]
    first = weights[f"{_STEM}stem.blocks.0.conv1.conv.weight"].shape[0]
    if stem == "v2":
        return {"base_features": first, "depth_per_level": blocks}
    return {"ch_per_level": [first, *levels], "depth_per_level": blocks}


def _levels(weights: Mapping[str, Tensor]) -> list[int]:
    """Channels after each halving of a residual stem."""
    found: list[int] = []
    while True:
        kernel = weights.get(f"{_STEM}stages.{len(found)}.blocks.0.conv1.conv.weight")
        if kernel is None:
            return found
        found.append(kernel.shape[0])
