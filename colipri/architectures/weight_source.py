"""What weights of any project are described by: our names, and what must be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

ENCODER = "image_encoder."  # where the image encoder lies in a ColipriModel
OUR_ORIENTATION = "SAR"  # array axes grow towards superior, anterior, right


@dataclass
class WeightFile:
    """What a file holds.

    Attributes:
        kind: what it is, for people.
        state: weights by the names of ColipriModel; at least those under ``image_encoder.``.
        num_heads: of the image encoder; None where the file does not say.
        intensities: mean and standard deviation in HU that were subtracted and divided by, for one
            CT channel; None where intensities had no absolute meaning.
        spacing: mm along our axes; None where the file does not say.
        position_grid: tokens per axis of a learned absolute position embedding, if there is one.
        tokenizer: of the text encoder, as checkpoints store it; None where there is none.
        text_encoder: name of a pretrained text encoder that the weights belong to.
        notes: what was mended on reading, for people.
    """

    kind: str
    state: dict[str, Tensor]
    num_heads: int | None = None
    intensities: tuple[float, float] | None = None
    spacing: tuple[float, ...] | None = None
    position_grid: tuple[int, ...] | None = None
    tokenizer: str | None = None
    text_encoder: str | None = None
    notes: list[str] = field(default_factory=list)


def ct_intensities(
    plans: Mapping[str, Any], configuration: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Mean and standard deviation in HU of a plan with one CT channel, ours or nnU-Net's."""
    if configuration.get("normalization_schemes") != ["CTNormalization"]:
        return None
    numbers = plans["foreground_intensity_properties_per_channel"]["0"]
    return float(numbers["mean"]), max(float(numbers["std"]), 1e-8)
