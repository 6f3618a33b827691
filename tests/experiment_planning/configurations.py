"""Configurations for tests of the memory and arithmetic models: small, with every stem."""

from __future__ import annotations

from typing import Any


def make_configuration(
    patch: tuple[int, int, int] = (32, 24, 40),
    embed_dim: int = 192,
    depth: int = 2,
    num_heads: int = 4,
    stem: str = "linear",
    stem_kwargs: dict[str, Any] | None = None,
    input_channels: int = 1,
    checkpointing: str = "none",
    text: tuple[int, int, int] = (96, 1, 2),
    max_text_tokens: int = 32,
    shared: int = 96,
    token_patch: tuple[int, int, int] = (8, 8, 8),
    decoder_depth: int = 1,
) -> dict[str, Any]:
    """What the memory model and ColipriModel.from_plans read of a plan.

    Args:
        text: width, layers and heads of the BERT.
        decoder_depth: of the report decoder.
    """
    width, layers, heads = text
    return {
        "patch_size": list(patch),
        "token_patch_size": list(token_patch),
        "batch_size": 8,
        "micro_batch_size": 1,
        "activation_checkpointing": checkpointing,
        "architecture": {
            "network_class_name": "colipri.architectures.primus.PrimusEncoder",
            "arch_kwargs": {
                "input_channels": input_channels,
                "embed_dim": embed_dim,
                "depth": depth,
                "num_heads": num_heads,
                "patch_embed_size": list(token_patch),
                "stem": stem,
                "stem_kwargs": stem_kwargs or {},
                "drop_path_rate": 0.2,
                "activation_checkpointing": checkpointing,
            },
        },
        "pool_heads": 4,
        "pool_queries": 0,
        "text_encoder": {
            "source": "scratch",
            "name_or_path": None,
            "vocabulary_size": 300,
            "arch_kwargs": {
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "intermediate_size": 4 * width,
                "max_position_embeddings": max_text_tokens,
            },
        },
        "max_text_tokens": max_text_tokens,
        "embed_dim": shared,
        "training": {
            "objectives": {
                "contrastive": {"weight": 1.0, "kind": "infonce"},
                "report_generation": {"weight": 1.0, "decoder_depth": decoder_depth},
            }
        },
    }
