"""What a transfer needs to know about an encoder, read from our own checkpoints.

Encoders of other projects are read by colipri.transfer.foreign_encoders, into the same description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_ENCODER = "image_encoder."  # where the encoder lies in a ColipriModel
CT_SCHEME = "CTNormalization"


@dataclass(frozen=True)
class PretrainedEncoder:
    """An image encoder and the images it was trained on.

    Attributes:
        weights: by the names of PrimusEncoder.
        arch_kwargs: arguments of PrimusEncoder, without ``input_channels``.
        channel_names: of the images it was trained on, in order.
        normalization_schemes: nnU-Net's class per channel.
        intensities: per channel the numbers of that class (HU window, mean and standard deviation).
        spacing: mm per voxel along the array axes.
        patch_size: voxels that it saw at once.
        orientation: where the array axes point, "SAR" or "RAS"; None for as stored in the file.
        source: what it is, for people.
    """

    weights: dict[str, Tensor]
    arch_kwargs: dict[str, Any]
    channel_names: tuple[str, ...]
    normalization_schemes: tuple[str, ...]
    intensities: tuple[Mapping[str, float], ...]
    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    orientation: str | None
    source: str

    @property
    def token_patch(self) -> tuple[int, int, int]:
        """Voxels of a token per axis."""
        a, b, c = self.arch_kwargs.get("patch_embed_size", (8, 8, 8))
        return int(a), int(b), int(c)

    def air_value(self, channel: int) -> float | None:
        """What air is after normalisation; None where intensities have no absolute meaning."""
        if self.normalization_schemes[channel] != CT_SCHEME:
            return None
        numbers = self.intensities[channel]
        air = min(max(-1000.0, numbers["percentile_00_5"]), numbers["percentile_99_5"])
        return (air - numbers["mean"]) / max(numbers["std"], 1e-8)


def load_pretrained_encoder(source: Path | str) -> PretrainedEncoder:
    """Read the encoder of a checkpoint.

    Args:
        source: a colipri checkpoint, a file or folder of colipri_export, a checkpoint of nnssl, or
            the released colipri weights (``model.safetensors``).

    Raises:
        ColipriError: missing, damaged, or nothing that can be transferred; the message says why.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ColipriError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        from colipri.transfer.foreign_encoders import encoder_from_safetensors

        return encoder_from_safetensors(path)
    from colipri.transfer.foreign_encoders import is_nnssl_checkpoint, nnssl_encoder

    if is_nnssl_checkpoint(path):
        return nnssl_encoder(path)
    from colipri.training.checkpoint import load_checkpoint

    content = load_checkpoint(path)
    return encoder_of_model(
        content["network_weights"],
        content["plans"],
        content["configuration"],
        content["orientation"],
        f"{path.name} ({content.get('trainer_name', 'colipri')} on "
        f"{content['plans']['dataset_name']}, {content['configuration']}, "
        f"epoch {content.get('epoch', '?')})",
    )


def encoder_of_model(
    weights: Mapping[str, Tensor],
    plans: Mapping[str, Any],
    configuration_name: str,
    orientation: str,
    source: str,
) -> PretrainedEncoder:
    """The encoder of a whole model's weights and the plan that it was built from.

    Raises:
        ColipriError: the weights hold no image encoder.
    """
    configuration = plans["configurations"][configuration_name]
    own = {
        name[len(IMAGE_ENCODER) :]: tensor
        for name, tensor in weights.items()
        if name.startswith(IMAGE_ENCODER)
    }
    if not own:
        raise ColipriError(f"{source} holds no image encoder (no weights under image_encoder.)")
    channels = sorted(plans["channel_names"], key=int)
    arch = {
        name: value
        for name, value in configuration["architecture"]["arch_kwargs"].items()
        if name != "input_channels"
    }
    a, b, c = (float(step) for step in configuration["spacing"])
    p, q, r = (int(size) for size in configuration["patch_size"])
    return PretrainedEncoder(
        weights=own,
        arch_kwargs=arch,
        channel_names=tuple(str(plans["channel_names"][number]) for number in channels),
        normalization_schemes=tuple(configuration["normalization_schemes"]),
        intensities=tuple(
            plans["foreground_intensity_properties_per_channel"].get(number, {})
            for number in channels
        ),
        spacing=(a, b, c),
        patch_size=(p, q, r),
        orientation=orientation,
        source=source,
    )
