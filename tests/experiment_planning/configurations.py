"""Configurations for tests of the memory and arithmetic models: small, with every stem."""

from __future__ import annotations

from typing import Any

from colipri.plans.plans import Configuration


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
) -> Configuration:
    """A small configuration with everything that a plan has.

    Args:
        text: width, layers and heads of the BERT.
        decoder_depth: of the report decoder.
    """
    width, layers, heads = text
    content = {
        "data_identifier": "small",
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"] * input_channels,
        "use_mask_for_norm": [False] * input_channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {},
        "storage_dtype": "int16",
        "augmentation": {},
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
            },
            "num_epochs": 1,
            "num_iterations_per_epoch": 1,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "betas": [0.9, 0.98],
            "warmup_iterations": 0,
            "gradient_clip": 1.0,
        },
    }
    return Configuration.from_dict(content)
