"""The weights of a pretrained encoder for one data set of nnU-Net, and their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.checkpoints.adaptation_plan import input_layers
from colipri.checkpoints.checkpoint_file import save_tensors
from colipri.checkpoints.encoder_fitting import (
    repeat_input_channel,
    rescale_input,
    resize_positions,
)
from colipri.checkpoints.pretrained_encoder import PretrainedEncoder
from colipri.common.errors import ColipriError
from colipri.plans.plans import CT_SCHEME


def weights_for_plan(
    encoder: PretrainedEncoder,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    num_channels: int,
) -> dict[str, Tensor]:
    """Return the encoder's weights for the plan's channels, normalization and patch.

    nnU-Net pads with 0 after normalization. Where air is not 0 to the encoder, the plan shifts the
    normalized image so that it is, and the stem takes the shift back.

    Args:
        encoder: what is transferred.
        plans: content of the plans file.
        configuration: the planned one of it.
        num_channels: of the data set.
    """
    weights = repeat_channels(encoder, num_channels)
    shifts = []
    for number in range(num_channels):
        trained = number if len(encoder.channel_names) > number else 0
        both_ct = (
            configuration["normalization_schemes"][number] == CT_SCHEME
            and encoder.normalization_schemes[trained] == CT_SCHEME
        )
        numbers = plans["foreground_intensity_properties_per_channel"][str(number)]
        ours = encoder.intensities[trained]
        shifts.append((ours["mean"] - numbers["mean"]) / ours["std"] if both_ct else 0.0)
    if any(shifts):  # the planner shifts only where the stem can take it back
        offsets = [-shift for shift in shifts]
        weights = rescale_input(weights, encoder.stem, [1.0] * num_channels, offsets)
    grid = encoder.arch_kwargs.get("position_grid")
    if grid is not None:
        arch = configuration["architecture"]["arch_kwargs"]["encoder"]
        weights = resize_positions(weights, grid, arch["position_grid"])
    return weights


def repeat_channels(encoder: PretrainedEncoder, num_channels: int) -> dict[str, Tensor]:
    """Return the weights for ``num_channels`` input channels.

    The kernels of a single channel are repeated and divided by the number of channels, so that
    equal channels give the features of one. The number of channels as trained changes nothing.

    Raises:
        ColipriError: several channels cannot become another number of channels.
    """
    trained = len(encoder.channel_names)
    if num_channels == trained:
        return dict(encoder.weights)
    if trained != 1:
        raise ColipriError(
            f"the encoder was trained on {trained} channels ({', '.join(encoder.channel_names)}) "
            f"and the data set has {num_channels}; only a single channel can be repeated: "
            "pre-train on one channel, or use a data set with the same channels"
        )
    kernels = [f"down_projection.{name}.weight" for name in input_layers(encoder.settings)]
    return repeat_input_channel(encoder.weights, kernels, num_channels)


def save_encoder(target: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
    """Write the file for ``nnUNetv2_train -pretrained_weights``: float32 on the CPU, nothing else.

    Args:
        target: The file.
        weights: By the names of PrimusEncoder.
        provenance: Where they come from, plain data.

    Raises:
        ColipriError: the disk is full or the folder is not writable.
    """
    # clones: a view would drag along the whole storage that it looks into
    tensors = {
        name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in weights.items()
    }
    save_tensors(target, {"network_weights": tensors, "colipri": provenance})
