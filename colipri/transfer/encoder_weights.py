"""Weights of a pretrained encoder, made to fit one data set: channels, padding, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colipri.architectures.primus import PrimusEncoder
from colipri.common.atomic import atomic_path
from colipri.common.errors import ColipriError
from colipri.transfer.pretrained_encoder import PretrainedEncoder

# First convolutions without padding: a shift of the image moves into their bias exactly.
_FIRST_CONVOLUTION = {"linear": "down_projection.proj", "light": "down_projection.layers.0"}


def repeat_channels(encoder: PretrainedEncoder, num_channels: int) -> dict[str, Tensor]:
    """Weights for ``num_channels`` input channels.

    The weights of a single channel are repeated and divided by the number of channels, so that
    equal channels give the features of one. As many channels as trained are kept as they are.

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
    ours, wanted = _shapes(encoder, trained), _shapes(encoder, num_channels)
    result = {}
    for name, tensor in encoder.weights.items():
        if name in wanted and ours[name] != wanted[name]:
            tensor = tensor.repeat(1, num_channels, 1, 1, 1) / num_channels
        result[name] = tensor
    return result


def can_shift(encoder: PretrainedEncoder) -> bool:
    """Whether a constant can be added to the image and taken back inside the stem, exactly."""
    return encoder.arch_kwargs.get("stem", "linear") in _FIRST_CONVOLUTION


def shift_input(
    encoder: PretrainedEncoder, weights: dict[str, Tensor], shift: Sequence[float]
) -> dict[str, Tensor]:
    """Weights that give for ``image + shift`` what the encoder gives for ``image``.

    nnU-Net pads with 0 after normalisation. Where air is not 0 to the encoder, the plan shifts the
    normalised image so that it is, and this takes the shift back.

    Args:
        weights: of the encoder, possibly for another number of channels.
        shift: per input channel of ``weights``.
    """
    if not any(shift):
        return weights
    name = _FIRST_CONVOLUTION[encoder.arch_kwargs.get("stem", "linear")]
    kernel = weights[f"{name}.weight"].sum(dim=(2, 3, 4))  # (D, C): response to a constant
    moved = weights[f"{name}.bias"] - kernel @ kernel.new_tensor(list(shift))
    return {**weights, f"{name}.bias": moved}


def resize_positions(
    weights: dict[str, Tensor], grid: Sequence[int], new_grid: Sequence[int]
) -> dict[str, Tensor]:
    """Interpolate a learned absolute position embedding to another token grid (trilinear).

    Args:
        weights: as in PrimusEncoder; without ``eva.pos_embed`` they are returned as they are.
        grid, new_grid: tokens per axis, in the order of the array axes.
    """
    embedding = weights.get("eva.pos_embed")
    if embedding is None or tuple(grid) == tuple(new_grid):
        return weights
    registers = embedding.shape[1] - prod(grid)
    rows = embedding[:, registers:].transpose(1, 2).unflatten(2, tuple(grid))
    resized = torch.nn.functional.interpolate(rows.float(), size=tuple(new_grid), mode="trilinear")
    positions = resized.flatten(2).transpose(1, 2)
    return {**weights, "eva.pos_embed": torch.cat((embedding[:, :registers], positions), dim=1)}


def save_encoder(target: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
    """Write the file for ``nnUNetv2_train -pretrained_weights``: float32 on the CPU, nothing else.

    Raises:
        ColipriError: the disk is full or the folder cannot be written to.
    """
    content = {
        # clones: a view would drag the whole storage that it looks into along
        "network_weights": {
            name: tensor.detach().float().cpu().contiguous().clone()
            for name, tensor in weights.items()
        },
        "colipri": provenance,
    }
    with atomic_path(target) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's zip writer hides the OSError of a full disk
            raise ColipriError(
                f"cannot write {target}: {str(error).splitlines()[0]}; check free disk space"
            ) from error


def _shapes(encoder: PretrainedEncoder, num_channels: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = PrimusEncoder(input_channels=num_channels, **encoder.arch_kwargs)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
