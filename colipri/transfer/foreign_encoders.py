"""Encoders of other projects, and of colipri_export, in the terms of PretrainedEncoder.

nnssl checkpoints name their encoder in ``nnssl_adaptation_plan``; the released colipri weights are
a bare safetensors file whose geometry is known. Nothing is guessed beyond that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError
from colipri.transfer.pretrained_encoder import PretrainedEncoder, encoder_of_model

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FORMAT = "colipri"
# The released package (0.1.3): 2 mm in RAS, 192 voxels, HU clamped to +-1000 and divided by 1000.
_RELEASED_GEOMETRY: dict[str, Any] = {
    "spacing": (2.0, 2.0, 2.0),
    "patch_size": (192, 192, 192),
    "orientation": "RAS",
}
_RELEASED_HU = {"percentile_00_5": -1000.0, "percentile_99_5": 1000.0, "mean": 0.0, "std": 1000.0}
_NNSSL_PRIMUS = {"PrimusS": "S", "PrimusB": "B", "PrimusM": "M", "PrimusL": "L"}


def encoder_from_safetensors(path: Path) -> PretrainedEncoder:
    """The encoder of colipri_export's ``model.safetensors``, or of the released colipri weights.

    Raises:
        ColipriError: unreadable, or neither of the two.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ColipriError(f"{path} cannot be read as safetensors: {error}") from error
    config = _config_beside(path)
    if config is not None:
        return encoder_of_model(
            weights,
            config["plans"],
            config["configuration"],
            config["orientation"],
            f"{path.name} (export of {config.get('source', 'colipri')})",
        )
    if "image_encoder.backbone.eva.norm.weight" in weights:
        return _released_encoder(weights, path)
    raise ColipriError(
        f"{path} is neither an export of colipri (there is no config.json of one beside it) nor "
        "the released colipri weights"
    )


def _config_beside(path: Path) -> dict[str, Any] | None:
    file = path.with_name("config.json")
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ColipriError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != CONFIG_FORMAT:
        return None
    return config


def _released_encoder(weights: Mapping[str, Tensor], path: Path) -> PretrainedEncoder:
    from colipri.architectures.key_maps import model_from_released

    own = {
        name[len("image_encoder.") :]: tensor
        for name, tensor in model_from_released(weights).items()
        if name.startswith("image_encoder.")
    }
    return PretrainedEncoder(
        weights=own,
        arch_kwargs=describe_encoder(own, str(path)),
        channel_names=("CT",),
        normalization_schemes=("CTNormalization",),
        intensities=(_RELEASED_HU,),
        source=f"{path.name} (released colipri)",
        **_RELEASED_GEOMETRY,
    )


def is_nnssl_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint with an nnssl adaptation plan and not one of ours."""
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError):
        return False  # whoever reads it as a checkpoint of ours says what is wrong
    return (
        isinstance(content, dict)
        and "nnssl_adaptation_plan" in content
        and "colipri_checkpoint_version" not in content
    )


def nnssl_encoder(path: Path) -> PretrainedEncoder:
    """The Primus encoder of an nnssl checkpoint.

    Raises:
        ColipriError: another architecture than Primus, or an adaptation plan that lacks something.
    """
    import torch

    from colipri.architectures.key_maps import encoder_from_dna

    content = torch.load(path, map_location="cpu", weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    try:
        name = plan["architecture_plans"]["arch_class_name"]
        pretraining = plan["pretrain_plan"]
        configuration = next(iter(pretraining["configurations"].values()))
        a, b, c = (float(step) for step in configuration["spacing"])
        p, q, r = (int(n) for n in plan.get("pretrain_patch_size") or configuration["patch_size"])
        schemes = tuple(configuration["normalization_schemes"])
        prefixes = {plan["key_to_encoder"]: "eva", plan["key_to_stem"]: "down_projection"}
        channels = int(plan["pretrain_num_input_channels"])
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise ColipriError(
            f"{path}: nnssl_adaptation_plan lacks what a transfer needs ({error})"
        ) from error
    if name not in _NNSSL_PRIMUS:
        raise ColipriError(
            f"{path} holds an encoder of class {name}; only Primus ({', '.join(_NNSSL_PRIMUS)}) "
            "can be transferred here"
        )
    weights = encoder_from_dna(_renamed(content["network_weights"], prefixes))
    arch = describe_encoder(weights, str(path))
    if "eva.pos_embed" in weights:
        arch["position_grid"] = [
            size // step for size, step in zip((p, q, r), arch["patch_embed_size"], strict=True)
        ]
    return PretrainedEncoder(
        weights=weights,
        arch_kwargs=arch,
        channel_names=tuple(f"channel {number}" for number in range(channels)),
        normalization_schemes=schemes * channels if len(schemes) == 1 else schemes,
        intensities=({},) * channels,
        spacing=(a, b, c),
        patch_size=(p, q, r),
        orientation=None,  # nnssl reads images in the orientation of their files
        source=f"{path.name} (nnssl, {name} on {pretraining.get('dataset_name', '?')})",
    )


def describe_encoder(weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Arguments of PrimusEncoder that fit the shapes of a Primus with a linear stem.

    Raises:
        ColipriError: a convolutional stem of unknown make, or a width that is none of Primus'.
    """
    from colipri.architectures.primus import PRESETS

    kernel = weights.get("down_projection.proj.weight")
    if kernel is None or kernel.ndim != 5 or "down_projection.layers.0.weight" in weights:
        raise ColipriError(f"{source}: its stem is not Primus' single strided convolution")
    width = kernel.shape[0]
    heads = {preset["embed_dim"]: preset["num_heads"] for preset in PRESETS.values()}
    if width not in heads:
        known = ", ".join(str(number) for number in heads)
        raise ColipriError(f"{source}: an encoder {width} wide is no Primus ({known})")
    blocks = {name.split(".")[2] for name in weights if name.startswith("eva.blocks.")}
    registers = weights.get("register_tokens")
    return {
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": heads[width],
        "patch_embed_size": list(kernel.shape[2:]),
        "stem": "linear",
        "stem_kwargs": {},
        "drop_path_rate": 0.2,
        "init_values": 0.1 if "eva.blocks.0.gamma_1" in weights else None,
        "scale_attn_inner": "eva.blocks.0.attn.norm.weight" in weights,
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "activation_checkpointing": "none",
    }


def _renamed(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Only what lies under the given prefixes (and register tokens), under our names."""
    result = {}
    for name, tensor in weights.items():
        for theirs, ours in prefixes.items():
            if name.startswith(theirs + "."):
                result[ours + name[len(theirs) :]] = tensor
        if name == "register_tokens":
            result[name] = tensor
    return result
