"""An image encoder on its own: weights, architecture, and the images that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.checkpoints.weight_file import WeightFile, require_primus, stem_of
from colipri.checkpoints.weight_reader import read_weight_file
from colipri.checkpoints.weights_location import find_weights
from colipri.common.errors import ColipriError
from colipri.plans.architecture import PRIMUS, EncoderSettings, OtherEncoderSettings
from colipri.plans.plans import CT_SCHEME

_STEM = "down_projection."


@dataclass(frozen=True)
class PretrainedEncoder:
    """An image encoder and the images that it was trained on.

    Attributes:
        weights: by the names of PrimusEncoder.
        arch_kwargs: arguments of PrimusEncoder, without ``input_channels``.
        channel_names: of the images, in order.
        normalization_schemes: nnU-Net's class per channel.
        intensities: parameters of that class per channel (HU window, mean, standard deviation).
        spacing: mm per voxel along the array axes.
        patch_size: voxels of its input.
        orientation: where the array axes point, "SAR"; None for as stored in the file.
        source: what it is, for people.
        notes: what was corrected on reading, for people.
        network: class of the encoder.
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
    network: str = PRIMUS

    @property
    def settings(self) -> EncoderSettings:
        """Typed arguments of the encoder, for the channels that it was trained on."""
        kind = EncoderSettings if self.network == PRIMUS else OtherEncoderSettings
        return kind.from_dict({**self.arch_kwargs, "input_channels": len(self.channel_names)})

    @property
    def token_patch(self) -> tuple[int, int, int]:
        """Voxels of a token per axis."""
        a, b, c = self.arch_kwargs.get("patch_embed_size", (8, 8, 8))
        return int(a), int(b), int(c)

    @property
    def stem(self) -> str:
        """Name of the stem: linear, light, resnet, v2 or v3."""
        return str(self.arch_kwargs.get("stem", "linear"))

    def air_value(self, channel: int) -> float | None:
        """Return the value of air after normalization; None if it has no absolute meaning."""
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
        ColipriError: missing, damaged, or without an encoder that can be transferred.
    """
    path = find_weights(source)
    file = read_weight_file(path)
    require_primus(file, path, "its tokens do not fit nnU-Net's decoders")
    return encoder_of_file(file, f"{path.name} ({file.kind})")


def encoder_of_file(file: WeightFile, source: str) -> PretrainedEncoder:
    """Return the encoder of weights that have been read.

    Args:
        file: the weights, with the images that they were trained on.
        source: what the file is, for people.

    Raises:
        ColipriError: no image encoder, or too little is known about it.
    """
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
            arch = arguments_of_weights(weights, file.num_heads, file.position_grid)
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
        network=file.network,
    )


def arguments_of_weights(
    weights: Mapping[str, Tensor], num_heads: int | None, position_grid: Sequence[int] | None
) -> dict[str, Any]:
    """Return the arguments of PrimusEncoder, without ``input_channels``, read from the shapes of
    weights.

    Args:
        weights: by the names of PrimusEncoder.
        num_heads: attention heads; weights do not show them.
        position_grid: tokens per axis of the absolute position embedding, if there is one.

    Raises:
        ColipriError: unknown heads, or a stem that none of these projects builds.
    """
    width = len(weights["eva.norm.weight"])
    if num_heads is None:
        raise ColipriError(
            f"an encoder {width} wide is not Primus S, B, M or L, so its heads are unknown"
        )
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
        raise ColipriError("its stem is not one of Primus', PrimusV2's or PrimusV3's")
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
