"""Weights from any project, in our names, with what is known about the images behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.imageio.image import DEFAULT_ORIENTATION
from colipri.plans.architecture import PRIMUS
from colipri.plans.plans import CT_SCHEME, REORIENTING_READER, Plans

ENCODER = "image_encoder."  # prefix of the image encoder in a ColipriModel
EXPORT_FORMAT = "colipri"  # ``format`` of the config.json beside an export of ours
MODEL_TYPE = "colipri"  # ``model_type`` in it, by which transformers finds the classes


@dataclass(frozen=True)
class Channel:
    """An input channel of the images that weights were trained on.

    Attributes:
        name: as in dataset.json, e.g. "CT".
        scheme: nnU-Net's class that normalized it.
        numbers: parameters of that class: HU window, mean and standard deviation.
    """

    name: str
    scheme: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass
class WeightFile:
    """The content of a file of weights.

    Attributes:
        kind: what the file is, for people.
        state: weights by the names of ColipriModel; at least those under ``image_encoder.``.
        num_heads: of the image encoder; None if the file does not say.
        arch_kwargs: arguments of PrimusEncoder without ``input_channels``, if the file has them.
        channels: of the images; empty if the file does not say.
        spacing: mm along our axes; None if the file does not say.
        patch_size: voxels of the encoder's input; None if the file does not say.
        orientation: where the array axes point: ours, or None for as stored in the image files.
        position_grid: tokens per axis of a learned absolute position embedding, if there is one.
        tokenizer: of the text encoder, as checkpoints store it; None if there is none.
        text_encoder: name of the pretrained text encoder that the weights belong to.
        notes: what was corrected on reading, for people.
        network: class of the image encoder.
        licences: of what went into the weights (colipri.checkpoints.licences), as plain data.
    """

    kind: str
    state: dict[str, Tensor]
    num_heads: int | None = None
    arch_kwargs: dict[str, Any] | None = None
    channels: tuple[Channel, ...] = ()
    spacing: tuple[float, ...] | None = None
    patch_size: tuple[int, ...] | None = None
    orientation: str | None = DEFAULT_ORIENTATION
    position_grid: tuple[int, ...] | None = None
    tokenizer: str | None = None
    text_encoder: str | None = None
    notes: list[str] = field(default_factory=list)
    licences: list[dict[str, str]] = field(default_factory=list)
    network: str = PRIMUS

    @property
    def intensities(self) -> tuple[float, float] | None:
        """Mean and standard deviation in HU of the normalization, for one CT channel.

        None if intensities had no absolute meaning.
        """
        if len(self.channels) != 1 or self.channels[0].scheme != CT_SCHEME:
            return None
        numbers = self.channels[0].numbers
        return float(numbers["mean"]), max(float(numbers["std"]), 1e-8)

    def encoder_weights(self) -> dict[str, Tensor]:
        """Return the weights of the image encoder, by the names of PrimusEncoder."""
        return {
            name[len(ENCODER) :]: tensor
            for name, tensor in self.state.items()
            if name.startswith(ENCODER)
        }


def file_of_model(
    weights: Mapping[str, Tensor], plans: Plans, configuration_name: str
) -> WeightFile:
    """Return a model's weights with what its plan says about them, as if read from a checkpoint.

    Args:
        weights: State dict of a ColipriModel.
        plans: That it was trained with.
        configuration_name: The trained configuration.

    Raises:
        ColipriError: the plan has no such configuration.
    """
    configuration = plans.configuration(configuration_name)
    encoder = configuration.encoder
    arch = encoder.to_dict()
    del arch["input_channels"]
    names, numbers = plans.channel_names, plans.foreground_intensity_properties_per_channel
    return WeightFile(
        "colipri model",
        dict(weights),
        num_heads=encoder.num_heads,
        arch_kwargs=arch,
        channels=tuple(
            Channel(
                names.get(str(number), f"channel {number}"),
                scheme,
                numbers[str(number)].to_dict() if str(number) in numbers else {},
            )
            for number, scheme in enumerate(configuration.normalization_schemes)
        ),
        spacing=tuple(configuration.spacing),
        patch_size=tuple(configuration.patch_size),
        position_grid=None if encoder.position_grid is None else tuple(encoder.position_grid),
        text_encoder=configuration.text_encoder.name_or_path,
        network=configuration.architecture.network_class_name,
    )


def require_primus(file: WeightFile, source: Path | str, purpose: str) -> None:
    """Refuse an image encoder that is used as it is, where only Primus can be used.

    Args:
        file: the weights.
        source: of the weights, for the message.
        purpose: what cannot be done with them.

    Raises:
        ColipriError: it is not Primus.
    """
    if file.network != PRIMUS:
        name = file.network.rpartition(".")[2].removesuffix("Encoder")
        raise ColipriError(
            f"{source} is {name}, not Primus: {purpose}; colipri_encode, colipri_index and "
            "colipri_probe take it"
        )


def channels_of_nnunet(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], names: Mapping[str, Any]
) -> tuple[Channel, ...]:
    """Return the channels of a plan of nnU-Net or nnssl.

    Args:
        plans: content of the plans file.
        configuration: one of its configurations.
        names: ``channel_names`` as in dataset.json, possibly empty.
    """
    numbers = plans.get("foreground_intensity_properties_per_channel", {})
    return tuple(
        Channel(str(names.get(str(i), f"channel {i}")), str(scheme), numbers.get(str(i), {}))
        for i, scheme in enumerate(configuration.get("normalization_schemes", ()))
    )


def orientation_of_reader(reader: Any) -> str | None:
    """Return the axes of the arrays that nnU-Net's reader of this name returns."""
    return DEFAULT_ORIENTATION if reader == REORIENTING_READER else None


def stem_of(state: Mapping[str, Tensor]) -> str:
    """Return the stem that an encoder's weights belong to: linear, light, resnet, v2 or v3."""
    below = "down_projection."
    if any(name.startswith(below + "layers.") for name in state):
        return "light"
    if any(name.startswith(below + "surroundings.") for name in state):
        return "resnet"
    if any(name.startswith(below + "proj_to_tokens.") for name in state):
        return "v3"
    return "v2" if any(name.startswith(below + "stages.") for name in state) else "linear"
