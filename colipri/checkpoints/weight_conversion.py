"""Weights of other projects in our names and axes, and back.

Names: nothing is guessed. A name that is not understood stays in the result, and
``load_state_dict_reported`` reports it when the weights are loaded.

Axes: other projects feed arrays whose axes come in another order than ours. Instead of permuting
every image, the encoder is permuted once: its kernels, its rotary features and its position table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from colipri.common.errors import ColipriError

State = dict[str, Tensor]

# Released colipri 0.1.3 -> ours, by prefix; the first match counts.
_RELEASED = (
    ("image_encoder.backbone.", "image_encoder."),
    ("image_encoder.projector.", "image_projector."),
    ("image_encoder.pooler.attn.", "image_pooler.attention."),
    ("image_encoder.pooler.query", "image_pooler.queries"),
    ("text_encoder.backbone.bert.", "text_encoder.encoder."),
    ("text_encoder.backbone.", "text_encoder.encoder."),
    ("text_encoder.pooler.attn.", "text_encoder.pooler.attention."),
    ("text_encoder.pooler.query", "text_encoder.pooler.queries"),
)
# A convolution block there registers its parts, and a sequence of the same parts.
_TWICE = ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1."))


def encoder_from_dna(state: Mapping[str, Tensor]) -> State:
    """Return the weights of dynamic-network-architectures' Primus, PrimusV2 or PrimusV3 for our
    encoder.

    The decoder (``up_projection``) and the constant mask token are left out, convolutions that are
    listed twice, or only under their second name as safetensors may leave them, are taken once, and
    an absolute position embedding of zeros, which changes nothing, is dropped. One that was learned
    stays: it needs an encoder with ``position_grid``.

    Raises:
        ColipriError: the two copies of a convolution differ (the file was edited in one place).
    """
    result: State = {}
    for name, tensor in state.items():
        if name.startswith("up_projection.") or name == "mask_token":
            continue
        if name == "eva.pos_embed" and not tensor.any():
            continue
        ours = _first_name(name)
        if ours in result and not torch.equal(result[ours], tensor):
            raise ColipriError(f"the weights are inconsistent: {name} differs from its copy {ours}")
        result[ours] = tensor
    return result


def encoder_to_dna(state: Mapping[str, Tensor], position_rows: int | None = None) -> State:
    """Return our encoder's weights for dynamic-network-architectures' Primus, without its
    decoder.

    Args:
        state: of a PrimusEncoder.
        position_rows: tokens (and register tokens) of the target's absolute position embedding,
            where it has one and ours does not: it gets zeros, which is the same function.
    """
    result: State = {}
    for name, tensor in state.items():
        result[name] = tensor
        if name.startswith("down_projection."):
            for first, second in _TWICE:
                if first in name:
                    result[name.replace(first, second)] = tensor
    width = state["eva.norm.weight"]
    result["mask_token"] = width.new_zeros(1, 1, len(width))
    if position_rows is not None and "eva.pos_embed" not in state:
        result["eva.pos_embed"] = width.new_zeros(1, position_rows, len(width))
    return result


def model_from_released(state: Mapping[str, Tensor]) -> State:
    """Return the weights of the released colipri 0.1.3 (``model.safetensors``) for our
    ColipriModel.

    Its softmax temperature becomes our logit scale, its 1 x 1 x 1 projector a linear layer; BERT's
    constant ``position_ids``, which older transformers versions stored, and its unused pooler are
    left out.

    Raises:
        ColipriError: the softmax temperature is not positive.
    """
    image = {
        "image_encoder.backbone." + name: tensor
        for name, tensor in encoder_from_dna(_below(state, "image_encoder.backbone.")).items()
    }
    rest = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("image_encoder.backbone.")
    }
    result: State = {}
    for name, tensor in {**image, **rest}.items():
        if name == "softmax_temperature":
            result["logit_scale"] = _logit_scale(tensor)
            continue
        ours = _renamed(name)
        if ours.endswith(".position_ids") or ours.startswith("text_encoder.encoder.pooler."):
            continue
        result[ours] = tensor.flatten(1) if ours == "image_projector.weight" else tensor
    result["logit_bias"] = torch.tensor(0.0)
    return result


def _first_name(name: str) -> str:
    for first, second in _TWICE:
        name = name.replace(second, first)
    return name


def _logit_scale(temperature: Tensor) -> Tensor:
    value = float(temperature)
    if not value > 0:
        raise ColipriError(f"softmax_temperature is {value:g}; it must be positive")
    return torch.tensor(-math.log(value))


def _renamed(name: str) -> str:
    for theirs, ours in _RELEASED:
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return name


def _below(state: Mapping[str, Tensor], prefix: str) -> State:
    return {
        name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)
    }


def permute_axes(
    state: Mapping[str, Tensor],
    order: Sequence[int],
    num_heads: int,
    grid: Sequence[int] | None = None,
) -> State:
    """Return the weights of an encoder for images whose axis i is the former axis ``order[i]``.

    Args:
        state: weights of a PrimusEncoder, by its names.
        order: a permutation of 0, 1, 2.
        num_heads: attention heads.
        grid: tokens per axis of the absolute position embedding, if there is one.

    Returns:
        Weights with which ``encoder(image.permute(order))`` gives the features that the original
        gave for ``image``, token by token.
    """
    kernel_order = (0, 1, *(2 + axis for axis in order))
    permuted = {
        name: tensor.permute(kernel_order).contiguous()
        if name.startswith("down_projection.") and tensor.ndim == 5
        else tensor
        for name, tensor in state.items()
    }
    return permute_positions(permuted, order, num_heads, grid)


def permute_positions(
    state: Mapping[str, Tensor],
    order: Sequence[int],
    num_heads: int,
    grid: Sequence[int] | None = None,
) -> State:
    """Permute as :func:`permute_axes`, but only the positions that the transformer sees.

    A third of each head's pairs rotates with each axis (colipri.architectures.rope), so queries and
    keys exchange these thirds.

    Args:
        state, order, num_heads, grid: as for :func:`permute_axes`.

    Raises:
        ValueError: the position table does not have the rows of ``grid``.
    """
    result = dict(state)
    for name, tensor in state.items():
        if name.endswith((".q_proj.weight", ".q_proj.bias", ".k_proj.weight")):
            thirds = tensor.unflatten(0, (num_heads, 3, -1))
            result[name] = thirds[:, list(order)].flatten(0, 2)
    table = state.get("eva.pos_embed")
    if table is not None:
        if grid is None or table.shape[1] < math.prod(grid):
            raise ValueError(f"the position table has {table.shape[1]} rows, the grid is {grid}")
        registers = table.shape[1] - math.prod(grid)
        rows = table[0, registers:].unflatten(0, tuple(grid)).permute(*order, 3)
        result["eva.pos_embed"] = torch.cat((table[:, :registers], rows.flatten(0, 2)[None]), dim=1)
    return result
