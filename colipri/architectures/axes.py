"""Exchanging image axes inside the weights: the same function for an image that lies differently.

Other projects feed arrays whose axes come in another order than ours. Instead of turning every
image, the encoder is turned once: its kernels, its rotary features and its position table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

State = dict[str, Tensor]


def permute_axes(
    state: Mapping[str, Tensor],
    order: Sequence[int],
    num_heads: int,
    grid: Sequence[int] | None = None,
) -> State:
    """Weights of an encoder for images whose axis i is the former axis ``order[i]``.

    Args:
        state: of a PrimusEncoder, by its names.
        order: a permutation of 0, 1, 2.
        num_heads: of its attention.
        grid: tokens per axis of its absolute position embedding, if it has one.

    Returns:
        Weights with which ``encoder(image.permute(order))`` holds the features that the former gave
        for ``image``, token by token.
    """
    kernel_order = (0, 1, *(2 + axis for axis in order))
    turned = {
        name: tensor.permute(kernel_order).contiguous()
        if name.startswith("down_projection.") and tensor.ndim == 5
        else tensor
        for name, tensor in state.items()
    }
    return permute_positions(turned, order, num_heads, grid)


def permute_positions(
    state: Mapping[str, Tensor],
    order: Sequence[int],
    num_heads: int,
    grid: Sequence[int] | None = None,
) -> State:
    """As :func:`permute_axes`, of the transformer alone: only its positions change their axes.

    A third of the pairs of each head turns with each axis (colipri.architectures.rope), so queries
    and keys exchange these thirds.
    """
    result = dict(state)
    for name, tensor in state.items():
        if name.endswith((".q_proj.weight", ".q_proj.bias", ".k_proj.weight")):
            thirds = tensor.unflatten(0, (num_heads, 3, -1))
            result[name] = thirds[:, list(order)].flatten(0, 2)
    table = state.get("eva.pos_embed")
    if table is not None:
        if grid is None or table.shape[1] < prod(grid):
            raise ValueError(f"the position table has {table.shape[1]} rows, the grid is {grid}")
        registers = table.shape[1] - prod(grid)
        rows = table[0, registers:].unflatten(0, tuple(grid)).permute(*order, 3)
        result["eva.pos_embed"] = torch.cat((table[:, :registers], rows.flatten(0, 2)[None]), dim=1)
    return result
