"""Making foreign encoder weights fit an encoder of the same make: channels, intensities, positions.

What can be changed without changing the function is changed; what cannot is refused in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from colipri.architectures.primus import PrimusEncoder
from colipri.architectures.weight_source import WeightFile
from colipri.common.errors import ColipriError


@dataclass
class Fitted:
    """Weights for one encoder.

    Attributes:
        state: by the names of PrimusEncoder.
        notes: what was changed.
        left: what of the file or of the encoder has no counterpart, and what happens instead.
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
    """The file's image encoder for this encoder; neither is changed.

    Args:
        encoder: for which the weights are.
        file: read by ``read_weight_file``.
        path: of the file, for messages.
        intensities: mean and standard deviation in HU that the images are normalised with here.

    Raises:
        ColipriError: another stem, token patch, size, or number of channels.
    """
    state = file.encoder_weights()
    _require_same_make(encoder, state, file, path)
    result = Fitted()
    state = _with_channels(encoder, state, path, result)
    state = _with_intensities(state, file, intensities, result)
    result.state = _with_positions(encoder, state, file, path, result)
    return result


def _require_same_make(
    encoder: PrimusEncoder, state: Mapping[str, Tensor], file: WeightFile, path: Path
) -> None:
    """The differences that people meet, each in words; anything else is named by its weights."""
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
        _refuse(path, f"it has {file.num_heads} attention heads", f"this plan has {heads}")


def _refuse(path: Path, theirs: str, ours: str) -> None:
    raise ColipriError(
        f"{path} does not fit: {theirs}, {ours}; plan with the same, or train without "
        "-pretrained_weights"
    )


def stem_of(state: Mapping[str, Tensor]) -> str:
    """Which of the stems the weights of an encoder are for."""
    below = "down_projection."
    if any(name.startswith(below + "layers.") for name in state):
        return "light"
    if any(name.startswith(below + "proj_to_tokens.") for name in state):
        return "v3"
    return "v2" if any(name.startswith(below + "stages.") for name in state) else "linear"


def _with_channels(
    encoder: PrimusEncoder, state: dict[str, Tensor], path: Path, result: Fitted
) -> dict[str, Tensor]:
    """One channel is repeated and scaled: equal channels then give the features of one."""
    wanted = encoder.state_dict()
    changed = dict(state)
    for name, tensor in state.items():
        target = wanted.get(name)
        if target is None or not name.startswith("down_projection.") or tensor.ndim != 5:
            continue
        here, there = target.shape[1], tensor.shape[1]
        if here == there or target.shape[0] != tensor.shape[0]:
            continue
        if there != 1:
            _refuse(
                path, f"it takes {there} channels", f"this plan {here}; only one can be repeated"
            )
        changed[name] = tensor.repeat(1, here, 1, 1, 1) / here
        note = f"its one input channel was repeated {here} times and divided by {here}"
        if note not in result.notes:
            result.notes.append(note)
    return changed


def _with_intensities(
    state: dict[str, Tensor],
    file: WeightFile,
    intensities: tuple[float, float] | None,
    result: Fitted,
) -> dict[str, Tensor]:
    """Let a linear stem take this run's intensities for its own: HU is what both mean.

    Convolutional stems normalise each channel after their first convolution, so they do not see
    scale and offset.
    """
    if stem_of(state) != "linear" or intensities == file.intensities:
        return state
    if intensities is None or file.intensities is None:
        result.notes.append("intensities are not in HU on both sides, the stem starts unadapted")
        return state
    (mean, std), (their_mean, their_std) = intensities, file.intensities
    scale, shift = std / their_std, (mean - their_mean) / their_std
    kernel, bias = (state[f"down_projection.proj.{name}"] for name in ("weight", "bias"))
    result.notes.append(
        f"stem adapted from (HU - {their_mean:g}) / {their_std:g} to (HU - {mean:g}) / {std:g}"
    )
    return {
        **state,
        "down_projection.proj.weight": kernel * scale,
        "down_projection.proj.bias": bias + shift * kernel.sum(dim=(1, 2, 3, 4)),
    }


def _with_positions(
    encoder: PrimusEncoder, state: dict[str, Tensor], file: WeightFile, path: Path, result: Fitted
) -> dict[str, Tensor]:
    """A learned absolute position embedding: resized, left out, or started at zero."""
    table, grid = state.get("eva.pos_embed"), encoder.position_grid
    rest = {name: tensor for name, tensor in state.items() if name != "eva.pos_embed"}
    if grid is None:
        if table is not None:
            result.left["absolute position embedding"] = "this plan has none (position_grid)"
        return rest
    target = encoder.state_dict()["eva.pos_embed"]
    if table is None:
        result.left["absolute position embedding"] = "the file has none; it starts at zero"
        return {**rest, "eva.pos_embed": torch.zeros_like(target)}
    if table.shape != target.shape or file.position_grid not in (None, grid):
        if file.position_grid is None:
            raise ColipriError(
                f"{path}: its position embedding has {table.shape[1]} rows, this plan's "
                f"{target.shape[1]}, and the file does not say for which grid"
            )
        table = _resized(table, file.position_grid, grid)
        result.notes.append(f"position embedding resized from {file.position_grid} to {grid}")
    return {**rest, "eva.pos_embed": table}


def _resized(table: Tensor, grid: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    registers = table.shape[1] - int(torch.tensor(grid).prod())
    rows = table[:, registers:].transpose(1, 2).unflatten(2, grid)
    rows = torch.nn.functional.interpolate(rows.float(), size=new, mode="trilinear")
    return torch.cat((table[:, :registers], rows.flatten(2).transpose(1, 2)), dim=1)
