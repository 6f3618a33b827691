"""What objectives beyond the two towers need: their decoders' activations and parameters.

A new objective adds one line to each table. Masked image modelling keeps nothing beside the pairs:
it is a pass of its own over a quarter of the tokens, when the activations of the pairs are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

# colipri_train's default trainer generates reports and reconstructs patches, whatever the plan's
# own objectives are: memory is kept for both.
RESERVED = ("report_generation", "masked_image_modelling")
DECODER_DEPTH = {"report_generation": 6, "masked_image_modelling": 2}

# Report decoder: bytes per image token and channel for each block (keys and values) and once, per
# image token and channel of the encoder (a bf16 copy), per text token and channel for each block.
IMAGE_BLOCK_BYTES = {"bf16": 4.0, "cpu_bf16": 4.0, "fp32": 8.0}
IMAGE_ONCE_BYTES = {"bf16": 2.0, "cpu_bf16": 2.0, "fp32": 4.0}
ENCODER_COPY_BYTES = {"bf16": 2.0, "cpu_bf16": 2.0, "fp32": 0.0}
TEXT_BLOCK_BYTES = {"bf16": 46.4, "cpu_bf16": 46.4, "fp32": 80.4}

ObjectiveBytes = Callable[[dict[str, Any], str], float]
ObjectiveParameters = Callable[[dict[str, Any]], int]


def planned_objectives(configuration: dict[str, Any]) -> list[str]:
    """The plan's objectives and those that memory is always kept for."""
    return list(dict.fromkeys([*configuration["training"]["objectives"], *RESERVED]))


def report_decoder_bytes(configuration: dict[str, Any], precision: str) -> float:
    """Bytes that the report decoder keeps per pair; the loss is computed in chunks."""
    depth = _depth(configuration, "report_generation")
    tokens = prod(configuration["patch_size"]) / prod(configuration["token_patch_size"])
    width = _text_width(configuration)
    image = width * (IMAGE_BLOCK_BYTES[precision] * depth + IMAGE_ONCE_BYTES[precision])
    image += ENCODER_COPY_BYTES[precision] * _encoder_width(configuration)
    text = width * TEXT_BLOCK_BYTES[precision] * depth
    return tokens * image + _report_length(configuration) * text


def report_decoder_parameters(configuration: dict[str, Any]) -> int:
    """Parameters of the report decoder (its output layer is the token embedding)."""
    width = _text_width(configuration)
    block = 16 * width * width + 19 * width
    embeddings = configuration["text_encoder"]["vocabulary_size"] + _report_length(configuration)
    projection = (_encoder_width(configuration) + 1) * width
    depth = _depth(configuration, "report_generation")
    return depth * block + embeddings * width + projection + 2 * width


def masked_decoder_parameters(configuration: dict[str, Any]) -> int:
    """Parameters of the decoder that reconstructs patches."""
    from colipri.experiment_planning.memory import transformer_parameters

    width = _encoder_width(configuration)
    channels = configuration["architecture"]["arch_kwargs"]["input_channels"]
    voxels = prod(configuration["token_patch_size"]) * channels
    depth = _depth(configuration, "masked_image_modelling")
    ends = (width + 1) * width + (width + 1) * voxels + width  # in, out, mask token
    return transformer_parameters(width, depth) + ends


OBJECTIVE_BYTES: dict[str, ObjectiveBytes] = {"report_generation": report_decoder_bytes}
OBJECTIVE_PARAMETERS: dict[str, ObjectiveParameters] = {
    "report_generation": report_decoder_parameters,
    "masked_image_modelling": masked_decoder_parameters,
}


def _depth(configuration: dict[str, Any], objective: str) -> int:
    options = configuration["training"]["objectives"].get(objective, {})
    return int(options.get("decoder_depth", DECODER_DEPTH[objective]))


def _report_length(configuration: dict[str, Any]) -> int:
    options = configuration["training"]["objectives"].get("report_generation", {})
    return int(options.get("max_tokens") or configuration["max_text_tokens"])


def _encoder_width(configuration: dict[str, Any]) -> int:
    return int(configuration["architecture"]["arch_kwargs"]["embed_dim"])


def _text_width(configuration: dict[str, Any]) -> int:
    arch = configuration["text_encoder"].get("arch_kwargs") or {}
    return int(arch.get("hidden_size", 768))
