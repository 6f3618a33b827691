"""Weights of other projects as WeightFile: the released COLIPRI, nnssl, and Primus of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from colipri.architectures.pretrained_text import CXR_BERT
from colipri.architectures.primus import PRESETS
from colipri.checkpoints.weight_conversion import (
    encoder_from_dna,
    model_from_released,
    permute_axes,
    permute_positions,
)
from colipri.checkpoints.weight_file import (
    ENCODER,
    Channel,
    WeightFile,
    channels_of_nnunet,
    orientation_of_reader,
)
from colipri.common.errors import ColipriError
from colipri.plans.plans import CT_SCHEME

# The released package (0.1.3): 2 mm, 192 voxels, HU clamped to +-1000 and divided by 1000.
_RELEASED_HU = {"percentile_00_5": -1000.0, "percentile_99_5": 1000.0, "mean": 0.0, "std": 1000.0}


def from_released(weights: Mapping[str, Tensor]) -> WeightFile:
    """Read the released COLIPRI model's ``model.safetensors``, permuted to our axes."""
    state = model_from_released(weights)
    encoder = {n[len(ENCODER) :]: t for n, t in state.items() if n.startswith(ENCODER)}
    heads = preset_heads(encoder)
    # its arrays are (Right, Anterior, Superior), ours (Superior, Anterior, Right)
    permuted = permute_axes(encoder, (2, 1, 0), heads or 12)
    return WeightFile(
        "released COLIPRI model",
        {**state, **{ENCODER + name: tensor for name, tensor in permuted.items()}},
        num_heads=heads,
        channels=(Channel("CT", CT_SCHEME, _RELEASED_HU),),
        spacing=(2.0, 2.0, 2.0),
        patch_size=(192, 192, 192),
        text_encoder=CXR_BERT,
        notes=["axes turned from RAS, as the released package feeds images, to SAR"],
        licences=[{"source": "released COLIPRI weights", "text": "MIT"}],
    )


def from_nnssl(content: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> WeightFile:
    """Read an nnssl checkpoint with its adaptation plan.

    Args:
        content: of the file.
        weights: name -> tensor.
        path: of the file, named in messages.

    Raises:
        ColipriError: no Primus, an incomplete plan, or a token order that cannot be corrected.
    """
    plan = content["nnssl_adaptation_plan"]
    try:
        name = str(plan["architecture_plans"]["arch_class_name"])
        stem, transformer = str(plan["key_to_stem"]), str(plan["key_to_encoder"])
        pretraining = plan["pretrain_plan"]
        configuration = next(iter(pretraining["configurations"].values()))
        patch = [int(n) for n in plan.get("pretrain_patch_size") or configuration["patch_size"]]
        spacing = tuple(float(step) for step in configuration["spacing"])
        number = int(plan["pretrain_num_input_channels"])
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise ColipriError(f"{path}: its nnssl_adaptation_plan is incomplete ({error})") from error
    if not name.startswith("Primus"):
        raise ColipriError(f"{path} holds an nnssl encoder of class {name}; only Primus fits here")
    encoder = encoder_from_dna(
        _below(weights, {f"{stem}.": "down_projection.", f"{transformer}.": "eva."})
    )
    if "eva.norm.weight" not in encoder:
        raise ColipriError(f"{path} holds no weights under {transformer}, which its plan names")
    size = name.removeprefix("Primus")
    heads = PRESETS[size]["num_heads"] if size in PRESETS else preset_heads(encoder)
    schemes = list(configuration.get("normalization_schemes") or ["ZScoreNormalization"])
    file = WeightFile(
        f"nnssl checkpoint, {name} on {pretraining.get('dataset_name', '?')}",
        {},
        heads,
        channels=channels_of_nnunet(
            pretraining,
            {"normalization_schemes": schemes * number if len(schemes) == 1 else schemes},
            {},
        ),
        spacing=spacing,
        patch_size=tuple(patch),
        orientation=orientation_of_reader(pretraining.get("image_reader_writer")),
    )
    grid = _grid_of(encoder, patch)
    if "eva.pos_embed" in encoder:
        file.position_grid = grid
    if _is_masked_autoencoder(content, weights):
        encoder = _with_corrected_order(encoder, grid, heads, path)
        file.notes.append(
            "token order corrected: nnssl's masked autoencoder counts positions of the first two "
            "axes the other way round"
        )
    encoder = _transposed_back(encoder, file, pretraining, "nnssl")
    file.state = {ENCODER + key: tensor for key, tensor in encoder.items()}
    return file


def _with_corrected_order(
    encoder: dict[str, Tensor], grid: tuple[int, ...] | None, heads: int | None, path: Path
) -> dict[str, Tensor]:
    """nnssl's EvaMAE flattens as (axis 1, axis 0, axis 2) and rotates positions as (0, 1, 2)."""
    if heads is None:
        raise ColipriError(
            f"{path}: its number of heads is unknown, so its axes cannot be corrected"
        )
    if grid is not None and grid[0] != grid[1]:
        raise ColipriError(
            f"{path}: nnssl trained it on {'x'.join(map(str, grid))} tokens; where the first two "
            "axes differ, its token order mixes them, and no permutation can undo that"
        )
    return permute_positions(encoder, (1, 0, 2), heads, grid)


def _is_masked_autoencoder(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bool:
    if content.get("written_by") == "colipri":  # colipri_export: tokens in our order
        return False
    trainer = str(content.get("trainer_name", ""))
    return "decoder.blocks.0.norm1.weight" in weights or "MAE" in trainer or "SimMIM" in trainer


def from_primus(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> WeightFile:
    """Read Primus, PrimusV2 or V3, from an nnU-Net checkpoint or as bare weights."""
    encoder = encoder_from_dna(
        _below(weights, {"down_projection.": "down_projection.", "eva.": "eva."})
    )
    file = WeightFile("weights of Primus", {}, preset_heads(encoder))
    arguments = content.get("init_args")
    if isinstance(arguments, Mapping) and isinstance(arguments.get("plans"), Mapping):
        plans = arguments["plans"]
        configuration = plans["configurations"][arguments["configuration"]]
        names = (arguments.get("dataset_json") or {}).get("channel_names", {})
        file.kind = f"nnU-Net checkpoint, {content.get('trainer_name', '?')}"
        file.channels = channels_of_nnunet(plans, configuration, names)
        file.spacing = tuple(float(step) for step in configuration["spacing"])
        file.patch_size = tuple(int(size) for size in configuration["patch_size"])
        file.orientation = orientation_of_reader(plans.get("image_reader_writer"))
        grid = _grid_of(encoder, configuration["patch_size"])
        file.position_grid = grid if "eva.pos_embed" in encoder else None
        encoder = _transposed_back(encoder, file, plans, "nnU-Net")
    file.state = {ENCODER + name: tensor for name, tensor in encoder.items()}
    return file


def _transposed_back(
    encoder: dict[str, Tensor], file: WeightFile, plans: Mapping[str, Any], project: str
) -> dict[str, Tensor]:
    """Undo the transposition of a plan: weights, spacing, patch and grid in the reader's axes."""
    back = tuple(plans.get("transpose_backward") or (0, 1, 2))
    if back == (0, 1, 2) or file.spacing is None or file.patch_size is None:
        return encoder
    permuted = permute_axes(encoder, back, file.num_heads or 1, file.position_grid)
    file.spacing = tuple(file.spacing[axis] for axis in back)
    file.patch_size = tuple(file.patch_size[axis] for axis in back)
    if file.position_grid is not None:
        file.position_grid = tuple(file.position_grid[axis] for axis in back)
    file.notes.append(
        f"axes transposed back from {project}'s order {plans.get('transpose_forward')}"
    )
    return permuted


def _below(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """What lies under the prefixes, under our names, and register tokens; decoders are left out."""
    result = {}
    for name, tensor in weights.items():
        for theirs, ours in prefixes.items():
            if name.startswith(theirs):
                result[ours + name[len(theirs) :]] = tensor
        if name == "register_tokens":
            result[name] = tensor
    return result


def preset_heads(encoder: Mapping[str, Tensor]) -> int | None:
    """Heads of the paper's sizes by width: weights do not show them."""
    width = len(encoder["eva.norm.weight"])
    heads = {preset["embed_dim"]: preset["num_heads"] for preset in PRESETS.values()}
    return heads.get(width)


def _grid_of(encoder: Mapping[str, Tensor], patch: Any) -> tuple[int, ...] | None:
    """Tokens per axis of the patch that an encoder was trained on; a token of 8 where unknown."""
    kernel = encoder.get("down_projection.proj.weight")
    token = (8, 8, 8) if kernel is None else tuple(kernel.shape[2:])
    return tuple(int(size) // step for size, step in zip(patch, token, strict=True))
