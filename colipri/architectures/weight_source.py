"""What weights of any project are described by: our names, and what must be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

ENCODER = "image_encoder."  # where the image encoder lies in a ColipriModel
OUR_ORIENTATION = "SAR"  # array axes grow towards superior, anterior, right
CT_SCHEME = "CTNormalization"
EXPORT_FORMAT = "colipri"  # ``format`` of the config.json beside an export of ours
REORIENTING_READER = "NibabelIOWithReorient"  # nnU-Net's: images come in our axes


@dataclass(frozen=True)
class Channel:
    """An input channel of the images that weights were trained on.

    Attributes:
        name: as in dataset.json, e.g. "CT".
        scheme: nnU-Net's class that normalised it.
        numbers: of that class: HU window, mean and standard deviation.
    """

    name: str
    scheme: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass
class WeightFile:
    """What a file holds.

    Attributes:
        kind: what it is, for people.
        state: weights by the names of ColipriModel; at least those under ``image_encoder.``.
        num_heads: of the image encoder; None where the file does not say.
        arch_kwargs: arguments of PrimusEncoder without ``input_channels``, where the file has them.
        channels: of the images; empty where the file does not say.
        spacing: mm along our axes; None where the file does not say.
        patch_size: voxels that the encoder saw at once; None where the file does not say.
        orientation: where array axes point: ours, or None for as stored in the image files.
        position_grid: tokens per axis of a learned absolute position embedding, if there is one.
        tokenizer: of the text encoder, as checkpoints store it; None where there is none.
        text_encoder: name of a pretrained text encoder that the weights belong to.
        notes: what was mended on reading, for people.
    """

    kind: str
    state: dict[str, Tensor]
    num_heads: int | None = None
    arch_kwargs: dict[str, Any] | None = None
    channels: tuple[Channel, ...] = ()
    spacing: tuple[float, ...] | None = None
    patch_size: tuple[int, ...] | None = None
    orientation: str | None = OUR_ORIENTATION
    position_grid: tuple[int, ...] | None = None
    tokenizer: str | None = None
    text_encoder: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def intensities(self) -> tuple[float, float] | None:
        """Mean and standard deviation in HU that were subtracted and divided by, for one CT
        channel; None where intensities had no absolute meaning."""
        if len(self.channels) != 1 or self.channels[0].scheme != CT_SCHEME:
            return None
        numbers = self.channels[0].numbers
        return float(numbers["mean"]), max(float(numbers["std"]), 1e-8)

    def encoder_weights(self) -> dict[str, Tensor]:
        """Those of the image encoder, by the names of PrimusEncoder."""
        below = self.state.items()
        return {name[len(ENCODER) :]: t for name, t in below if name.startswith(ENCODER)}


def channels_of_plan(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], names: Mapping[str, Any]
) -> tuple[Channel, ...]:
    """Channels of a plan, ours or nnU-Net's; ``names`` as in dataset.json, possibly empty."""
    numbers = plans.get("foreground_intensity_properties_per_channel", {})
    return tuple(
        Channel(str(names.get(str(i), f"channel {i}")), str(scheme), numbers.get(str(i), {}))
        for i, scheme in enumerate(configuration.get("normalization_schemes", ()))
    )


def orientation_of_reader(reader: Any) -> str | None:
    """Array axes of images that nnU-Net's reader of this name gives."""
    return OUR_ORIENTATION if reader == REORIENTING_READER else None
