"""Fitting encoder weights to another encoder or other images: channels, intensities, positions.

What can be changed without changing the function is changed; everything else is an error of one
line. ``fit_encoder`` fits a file to an encoder that is about to be trained (warm start); the
functions below it change weights and are also what a transfer to nnU-Net uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from colipri.architectures.local_attention import LocalAttention
from colipri.architectures.primus import PrimusEncoder
from colipri.checkpoints.weight_file import WeightFile, require_primus, stem_of
from colipri.common.errors import ColipriError

# First convolutions without padding: a change of scale or offset moves into them exactly.
FIRST_CONVOLUTION = {"linear": "down_projection.proj", "light": "down_projection.layers.0"}


@dataclass
class Fitted:
    """Weights for one encoder.

    Attributes:
        state: by the names of PrimusEncoder.
        notes: what was changed.
        left: parts of the file or of the encoder without a counterpart, and what happens instead.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def fit_encoder(
    encoder: PrimusEncoder,
    file: WeightFile,
    path: Path,
    intensities: tuple[float, float] | None = None,
) -> Fitted:
    """Fit the file's image encoder to this encoder; neither is changed.

    Args:
        encoder: the target.
        file: read by ``read_weight_file``.
        path: of the file, for messages.
        intensities: mean and standard deviation in HU that this run normalizes its images with.

    Raises:
        ColipriError: another stem, token patch, size, or number of channels.
    """
    require_primus(file, path, "no training starts from it")
    state = file.encoder_weights()
    _require_same_architecture(encoder, state, file, path)
    result = Fitted()
    _note_attention(encoder, file, result)
    state = _with_channels(encoder, state, path, result)
    state = _with_intensities(state, file, intensities, result)
    result.state = _with_positions(encoder, state, file, path, result)
    return result


# ---------------------------------------------------------------- changes that keep the function


def repeat_input_channel(
    weights: Mapping[str, Tensor], names: Sequence[str], count: int
) -> dict[str, Tensor]:
    """Return the weights for ``count`` input channels instead of one: equal channels give the same
    features.

    Args:
        weights: of an encoder with one input channel.
        names: kernels (D, 1, k, k, k) that see the image.
        count: new number of channels.
    """
    repeated = {name: weights[name].repeat(1, count, 1, 1, 1) / count for name in names}
    return {**weights, **repeated}


def rescale_input(
    weights: Mapping[str, Tensor], stem: str, scale: Sequence[float], offset: Sequence[float]
) -> dict[str, Tensor]:
    """Return the weights that give for ``x`` what the encoder gives for ``scale * x + offset``.

    Args:
        weights: of an encoder.
        stem: one of FIRST_CONVOLUTION.
        scale, offset: per input channel, length C.
    """
    name = FIRST_CONVOLUTION[stem]
    kernel = weights[f"{name}.weight"]  # (D, C, k, k, k)
    response = kernel.sum(dim=(2, 3, 4))  # (D, C): to a constant image
    moved = weights[f"{name}.bias"] + response @ kernel.new_tensor(list(offset))
    factors = kernel.new_tensor(list(scale)).view(1, -1, 1, 1, 1)
    return {**weights, f"{name}.weight": kernel * factors, f"{name}.bias": moved}


def resize_positions(
    weights: Mapping[str, Tensor], grid: Sequence[int], new_grid: Sequence[int]
) -> dict[str, Tensor]:
    """Interpolate a learned absolute position embedding to another token grid (trilinear).

    Args:
        weights: of an encoder; without ``eva.pos_embed`` they are returned unchanged.
        grid, new_grid: tokens per axis, in the order of the array axes.
    """
    embedding = weights.get("eva.pos_embed")
    if embedding is None or tuple(grid) == tuple(new_grid):
        return dict(weights)
    registers = embedding.shape[1] - prod(grid)
    rows = embedding[:, registers:].transpose(1, 2).unflatten(2, tuple(grid))
    resized = torch.nn.functional.interpolate(rows.float(), size=tuple(new_grid), mode="trilinear")
    positions = resized.flatten(2).transpose(1, 2)
    return {**weights, "eva.pos_embed": torch.cat((embedding[:, :registers], positions), dim=1)}


# ---------------------------------------------------------------- a file for an encoder


def _require_same_architecture(
    encoder: PrimusEncoder, state: Mapping[str, Tensor], file: WeightFile, path: Path
) -> None:
    """Name the differences that people meet in words; any other is named by its weights."""
    wanted = encoder.state_dict()
    kernel, ours = (s.get("down_projection.proj.weight") for s in (state, wanted))
    stems = [stem_of(s) for s in (state, wanted)]
    if stems[0] != stems[1]:
        _refuse(path, f"its stem is {stems[0]}", f"this plan's is {stems[1]} (arch_kwargs.stem)")
    if kernel is not None and ours is not None and kernel.shape[2:] != ours.shape[2:]:
        sizes = ["x".join(map(str, k.shape[2:])) for k in (kernel, ours)]
        _refuse(path, f"its token patch is {sizes[0]} voxels", f"this plan's is {sizes[1]}")
    widths = [len(s["eva.norm.weight"]) for s in (state, wanted)]
    depths = [
        len({n.split(".")[2] for n in s if n.startswith("eva.blocks.")}) for s in (state, wanted)
    ]
    if widths[0] != widths[1] or depths[0] != depths[1]:
        theirs, here = (
            f"{w} wide and {d} blocks deep" for w, d in zip(widths, depths, strict=True)
        )
        _refuse(path, f"its transformer is {theirs}", f"this plan's is {here}")
    heads = widths[1] // encoder.head_dim
    if file.num_heads is not None and file.num_heads != heads:
        _refuse(
            path,
            f"it has {file.num_heads} attention heads",
            f"this plan has {heads} (--set architecture.num_heads={file.num_heads} when planning)",
        )


def _note_attention(encoder: PrimusEncoder, file: WeightFile, result: Fitted) -> None:
    """Say where attention differs: the weights fit, and training adapts them."""
    stored = (file.arch_kwargs or {}).get("attention")
    theirs = None if stored is None else LocalAttention.of(len(encoder.eva.blocks), **stored)
    if theirs != encoder.local:
        there, here = (_describe_attention(one) for one in (theirs, encoder.local))
        result.notes.append(f"trained with attention over {there}, continues with {here}")


def _describe_attention(local: LocalAttention | None) -> str:
    if local is None:
        return "all tokens"
    size = " x ".join(map(str, local.window))
    return f"windows of {size} tokens ({len(local.global_blocks)} blocks over all)"


def _refuse(path: Path, theirs: str, ours: str) -> None:
    raise ColipriError(
        f"{path} does not fit: {theirs}, {ours}; plan with the same, or train without "
        "-pretrained_weights"
    )


def _with_channels(
    encoder: PrimusEncoder, state: dict[str, Tensor], path: Path, result: Fitted
) -> dict[str, Tensor]:
    wanted = encoder.state_dict()
    names, here = [], 1
    for name, tensor in state.items():
        target = wanted.get(name)
        if target is None or not name.startswith("down_projection.") or tensor.ndim != 5:
            continue
        if target.shape[1] == tensor.shape[1] or target.shape[0] != tensor.shape[0]:
            continue
        here, there = target.shape[1], tensor.shape[1]
        if there != 1:
            _refuse(
                path, f"it takes {there} channels", f"this plan {here}; only one can be repeated"
            )
        names.append(name)
    if not names:
        return state
    result.notes.append(f"its one input channel was repeated {here} times and divided by {here}")
    return repeat_input_channel(state, names, here)


def _with_intensities(
    state: dict[str, Tensor],
    file: WeightFile,
    intensities: tuple[float, float] | None,
    result: Fitted,
) -> dict[str, Tensor]:
    """Let a linear stem take this run's intensities for its own: both mean HU.

    Convolutional stems normalize each channel after their first convolution, so they do not see
    scale and offset.
    """
    if stem_of(state) != "linear" or intensities == file.intensities:
        return state
    if intensities is None or file.intensities is None:
        result.notes.append("intensities are not in HU on both sides, the stem starts unadapted")
        return state
    (mean, std), (their_mean, their_std) = intensities, file.intensities
    result.notes.append(
        f"stem adapted from (HU - {their_mean:g}) / {their_std:g} to (HU - {mean:g}) / {std:g}"
    )
    channels = state["down_projection.proj.weight"].shape[1]
    scale, offset = std / their_std, (mean - their_mean) / their_std
    return rescale_input(state, "linear", [scale] * channels, [offset] * channels)


def _with_positions(
    encoder: PrimusEncoder, state: dict[str, Tensor], file: WeightFile, path: Path, result: Fitted
) -> dict[str, Tensor]:
    """A learned absolute position embedding: resized, left out, or started at zero."""
    table, grid = state.get("eva.pos_embed"), encoder.position_grid
    if grid is None:
        if table is not None:
            result.left["absolute position embedding"] = "this plan has none (position_grid)"
        return {name: tensor for name, tensor in state.items() if name != "eva.pos_embed"}
    target = encoder.state_dict()["eva.pos_embed"]
    if table is None:
        result.left["absolute position embedding"] = "the file has none; it starts at zero"
        return {**state, "eva.pos_embed": torch.zeros_like(target)}
    if table.shape == target.shape and file.position_grid in (None, grid):
        return state
    if file.position_grid is None:
        raise ColipriError(
            f"{path}: its position embedding has {table.shape[1]} rows, this plan's "
            f"{target.shape[1]}, and the file does not say for which grid"
        )
    result.notes.append(f"position embedding resized from {file.position_grid} to {grid}")
    return resize_positions(state, file.position_grid, grid)
