"""Weights of VoxelFM (arXiv 2604.04133, Apache-2.0) as WeightFile, turned to our axes.

Its encoder is the teacher of a self-distillation: patches of 14^3 isotropic voxels, HU clamped to
[-1000, 1900]. Its arrays point (Superior, Posterior, Left), as DICOM rows and columns do, ours
(Superior, Anterior, Right). Instead of flipping every image, the kernels are flipped once, and the
rotary features of two axes are conjugated, which turns them the other way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from colipri.checkpoints.weight_file import ENCODER, Channel, WeightFile
from colipri.common.errors import ColipriError
from colipri.plans.architecture import VOXELFM
from colipri.plans.plans import CT_SCHEME

_TEACHER = "teacher"  # entry of its checkpoints
_HEADS = ("dino_head.", "ibot_head.")
_PERIODS = "rope_embed.periods"
_NUMBERS = {
    "percentile_00_5": -1000.0,
    "percentile_99_5": 1900.0,
    "mean": -573.8,
    "std": 461.3,
}
_SPACING = (1.0, 1.0, 1.0)  # its own: the finest of the scan, at least 0.75 mm
_TOKENS = 24  # along each axis: 33.6 cm of a chest at 1 mm
_FLIPPED = (1, 2)  # axes


def voxelfm_weights(content: Mapping[str, object]) -> dict[str, Tensor] | None:
    """Return the backbone of a checkpoint of VoxelFM; None for any other file.

    Args:
        content: of the file: a checkpoint with a teacher, or the weights alone.
    """
    stored = content.get(_TEACHER, content)
    if not isinstance(stored, Mapping):
        return None
    weights = {}
    for name, tensor in stored.items():
        name = str(name).replace("module.", "").replace("backbone.", "")
        if isinstance(tensor, Tensor) and not name.startswith(_HEADS):
            weights[name] = tensor
    kernel = weights.get("patch_embed.proj.weight")
    is_3d = kernel is not None and kernel.ndim == 5
    return weights if is_3d and "blocks.0.attn.qkv.weight" in weights else None


def from_voxelfm(weights: Mapping[str, Tensor], path: Path) -> WeightFile:
    """Read the encoder.

    Args:
        weights: of :func:`voxelfm_weights`.
        path: of the file, for messages.

    Raises:
        ColipriError: another MLP than the published one, or no periods of the rotary positions.
    """
    if _PERIODS not in weights:
        raise ColipriError(f"{path} holds a transformer without {_PERIODS}: not one of VoxelFM")
    if "blocks.0.mlp.fc1.weight" not in weights:
        raise ColipriError(f"{path}: only the MLP of VoxelFM's published model is read, not SwiGLU")
    periods = weights[_PERIODS].double()
    kernel = weights["patch_embed.proj.weight"]
    width, heads = kernel.shape[0], kernel.shape[0] // (6 * len(periods))
    state = {n: t for n, t in weights.items() if n not in (_PERIODS, "mask_token")}
    state.setdefault("register_tokens", torch.zeros(1, 0, width))
    patch = [int(size) for size in kernel.shape[2:]]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    arguments = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "patch_embed_size": patch,
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_register_tokens": state["register_tokens"].shape[1],
        "rope_base": _base(periods),
    }
    return WeightFile(
        "VoxelFM",
        {ENCODER + name: tensor for name, tensor in flip_axes(state, heads).items()},
        num_heads=heads,
        arch_kwargs=arguments,
        channels=(Channel("CT", CT_SCHEME, _NUMBERS),),
        spacing=_SPACING,
        patch_size=tuple(_TOKENS * size for size in patch),
        notes=["axes turned from (Superior, Posterior, Left) to (Superior, Anterior, Right)"],
        licences=[{"source": "VoxelFM weights", "text": "Apache-2.0"}],
        network=VOXELFM,
    )


def flip_axes(state: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Return weights that give for an image what the original gave for it with two axes flipped.

    Args:
        state: of a VoxelFMEncoder.
        num_heads: attention heads.
    """
    result = dict(state)
    kernel = state["patch_embed.proj.weight"]
    result["patch_embed.proj.weight"] = kernel.flip([2 + axis for axis in _FLIPPED]).contiguous()
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            # (q k v, heads, axes, pairs, 2 of a pair, ...): the conjugate of queries and keys
            parts = tensor.clone().unflatten(0, (3, num_heads, 3, -1, 2))
            for axis in _FLIPPED:
                parts[:2, :, axis, :, 1] *= -1
            result[name] = parts.flatten(0, 4)
    return result


def _base(periods: Tensor) -> float:
    """The base whose powers 2 i / (2 n) the n periods are."""
    count = len(periods)
    if count == 1:
        return 100.0
    return round(math.exp(float(periods[-1].log()) * count / (count - 1)), 4)
