"""``nnssl_adaptation_plan``: what nnssl's successors of nnU-Net want to know about a checkpoint.

Read by nnU-Net's development version and TaWald/nnUNet (``nnUNetv2_preprocess_like_nnssl``,
``nnUNetv2_train_pretrained``). They build Primus by a name out of a fixed list and load the encoder
strictly, position embedding included; colipri_export writes a file with one (zeros, which is the
same function). Encoders that no name of the list describes say our own class, which those readers
refuse with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from colipri.architectures.primus import PRESETS
from colipri.architectures.stems import build_stem

OWN_CLASS = "colipri.architectures.primus.PrimusEncoder"
# What nnU-Net's Primus presets fix, beside their sizes.
_PRESET_OPTIONS = {
    "stem": "linear",
    "num_register_tokens": 0,
    "init_values": 0.1,
    "scale_attn_inner": True,
    "final_norm": "layer",
}
_OPTION_DEFAULTS = {
    "stem": "linear",
    "num_register_tokens": 0,
    "init_values": 0.1,
    "final_norm": "layer",
}


def nnssl_adaptation_plan(
    plans: Mapping[str, Any], configuration_name: str, prefix: str = "image_encoder."
) -> dict[str, Any]:
    """The adaptation plan of a checkpoint, plain data.

    Args:
        plans, configuration_name: what was trained.
        prefix: of the encoder's names in the file's ``network_weights``.
    """
    configuration = plans["configurations"][configuration_name]
    arch = configuration["architecture"]["arch_kwargs"]
    preset = primus_preset(arch)
    own_kwargs = {name: value for name, value in arch.items() if name != "input_channels"}
    patch = [int(size) for size in configuration["patch_size"]]
    stem = f"{prefix}down_projection"
    return {
        "architecture_plans": {
            "arch_class_name": f"Primus{preset}" if preset else OWN_CLASS,
            "arch_kwargs": None if preset else own_kwargs,
            "arch_kwargs_requiring_import": None,
        },
        "pretrain_plan": {
            "dataset_name": plans["dataset_name"],
            "plans_name": plans["plans_name"],
            "original_median_spacing_after_transp": list(configuration["spacing"]),
            "image_reader_writer": plans.get("image_reader_writer", "NibabelIOWithReorient"),
            "transpose_forward": list(plans.get("transpose_forward", [0, 1, 2])),
            "transpose_backward": list(plans.get("transpose_backward", [0, 1, 2])),
            "experiment_planner_used": plans.get("planner", "ColipriPlanner"),
            "configurations": {configuration_name: _configuration(configuration, patch)},
        },
        "pretrain_num_input_channels": int(arch["input_channels"]),
        "recommended_downstream_patchsize": patch,
        "pretrain_patch_size": patch,
        "key_to_encoder": f"{prefix}eva",
        "key_to_stem": stem,
        "keys_to_in_proj": [f"{stem}.{name}" for name in input_layers(arch)],
        "key_to_lpe": f"{prefix}eva.pos_embed",
    }


def checkpoint_entry(plans: Mapping[str, Any], configuration_name: str) -> dict[str, Any]:
    """The entry that every checkpoint gets; none for image encoders of somebody's own."""
    architecture = plans["configurations"][configuration_name]["architecture"]
    if architecture.get("network_class_name", OWN_CLASS) != OWN_CLASS:
        return {}
    return {"nnssl_adaptation_plan": nnssl_adaptation_plan(plans, configuration_name)}


def primus_preset(arch_kwargs: Mapping[str, Any]) -> str | None:
    """S, B, M or L where the encoder is that stock Primus, None otherwise."""
    if list(arch_kwargs.get("patch_embed_size", (8, 8, 8))) != [8, 8, 8]:
        return None
    for name, wanted in _PRESET_OPTIONS.items():
        if arch_kwargs.get(name, _OPTION_DEFAULTS.get(name, True)) != wanted:
            return None
    sizes = {key: arch_kwargs[key] for key in ("embed_dim", "depth", "num_heads")}
    return next((name for name, preset in PRESETS.items() if preset == sizes), None)


def input_layers(arch_kwargs: Mapping[str, Any]) -> list[str]:
    """Layers of the stem whose weights depend on the number of input channels."""
    shapes = []
    for channels in (1, 2):
        with torch.device("meta"):
            stem = build_stem(
                arch_kwargs.get("stem", "linear"),
                channels,
                arch_kwargs["embed_dim"],
                arch_kwargs.get("patch_embed_size", (8, 8, 8)),
                arch_kwargs.get("stem_kwargs") or {},
            )
        shapes.append({name: tensor.shape for name, tensor in stem.state_dict().items()})
    one, two = shapes
    return [name.removesuffix(".weight") for name in one if one[name] != two[name]]


def _configuration(configuration: Mapping[str, Any], patch: list[int]) -> dict[str, Any]:
    resampling = configuration["resampling_fn_data"]
    arguments = dict(configuration["resampling_fn_data_kwargs"])
    return {
        "data_identifier": configuration["data_identifier"],
        "preprocessor_name": configuration.get("preprocessor_name", "ColipriPreprocessor"),
        "spacing_style": "fixed",
        "spacing": [float(step) for step in configuration["spacing"]],
        "patch_size": patch,
        "normalization_schemes": list(configuration["normalization_schemes"]),
        "use_mask_for_norm": list(configuration["use_mask_for_norm"]),
        "resampling_fn_data": resampling,
        "resampling_fn_data_kwargs": arguments,
        "resampling_fn_mask": resampling,
        "resampling_fn_mask_kwargs": {**arguments, "is_seg": True, "order": 1},
    }
