"""What a transfer needs to know about an encoder: the weights, and the images they were trained on.

Files are read by colipri.architectures.weight_files, which knows several projects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.architectures.weight_source import CT_SCHEME, WeightFile
from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from torch import Tensor


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
        orientation: where the array axes point, "SAR"; None for as stored in the file.
        source: what it is, for people.
        notes: what was mended on reading, for people.
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
    notes: tuple[str, ...] = ()

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
        source: a colipri checkpoint, a file or folder of colipri_export, a checkpoint of nnssl or
            of nnU-Net's Primus, or the released colipri weights (``model.safetensors``).

    Raises:
        ColipriError: missing, damaged, or nothing that can be transferred; the message says why.
    """
    from colipri.architectures.weight_files import read_weight_file

    path = Path(source)
    file = read_weight_file(path)
    return encoder_of_file(file, f"{path.name} ({file.kind})")


def encoder_of_file(file: WeightFile, source: str) -> PretrainedEncoder:
    """The encoder of weights that have been read.

    Args:
        file: with the images that it was trained on.
        source: what it is, for people.

    Raises:
        ColipriError: no image encoder, or too little is known about it.
    """
    from colipri.architectures.encoder_shapes import describe_encoder

    weights = file.encoder_weights()
    if not weights:
        raise ColipriError(f"{source} holds no image encoder (no weights under image_encoder.)")
    if file.spacing is None or file.patch_size is None or not file.channels:
        raise ColipriError(
            f"{source} does not say at which spacing, patch size and intensities it was trained; "
            "give the checkpoint that the weights come from, with its plan"
        )
    arch = file.arch_kwargs
    if arch is None:
        try:
            arch = describe_encoder(weights, file.num_heads, file.position_grid)
        except ColipriError as error:
            raise ColipriError(f"{source}: {error}") from error
    a, b, c = file.spacing
    p, q, r = file.patch_size
    return PretrainedEncoder(
        weights=weights,
        arch_kwargs=arch,
        channel_names=tuple(channel.name for channel in file.channels),
        normalization_schemes=tuple(channel.scheme for channel in file.channels),
        intensities=tuple(channel.numbers for channel in file.channels),
        spacing=(a, b, c),
        patch_size=(p, q, r),
        orientation=file.orientation,
        source=source,
        notes=tuple(file.notes),
    )
