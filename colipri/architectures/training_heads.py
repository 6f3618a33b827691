"""Decoders that only pre-training needs: built from the settings of what is trained, dropped after.

Their weights are in a run's checkpoints under ``report_decoder.`` and ``masked_decoder.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from colipri.architectures.masked_decoder import MaskedDecoder
from colipri.architectures.report_decoder import ReportDecoder

if TYPE_CHECKING:
    from colipri.architectures.model import ColipriModel

PREFIXES = ("report_decoder.", "masked_decoder.")


def add_training_heads(
    model: ColipriModel,
    configuration: dict[str, Any],
    vocabulary_size: int,
    objectives: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give the model the decoders of its objectives; after the encoders, which start the same.

    The masked decoder is as wide as the image encoder (nnssl's), the report decoder as the text
    encoder, whose vocabulary it shares.
    """
    encoder = model.image_encoder
    arch = configuration["architecture"]["arch_kwargs"]
    if "report_generation" in objectives:
        options = objectives["report_generation"]
        bert = model.text_encoder.encoder.config
        model.report_decoder = ReportDecoder(
            vocabulary_size,
            options.get("max_tokens") or configuration["max_text_tokens"],
            encoder.embed_dim,
            bert.hidden_size,
            options.get("decoder_depth", 6),
            bert.num_attention_heads,
        )
    if "masked_image_modelling" in objectives:
        model.masked_decoder = MaskedDecoder(
            encoder.embed_dim,
            arch["input_channels"] * prod(encoder.patch_embed_size),
            encoder.embed_dim,
            objectives["masked_image_modelling"].get("decoder_depth", 2),
            arch["num_heads"],
        )


def without_training_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights without those of the decoders: the two encoders."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(PREFIXES)}
