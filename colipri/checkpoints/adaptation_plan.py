"""``nnssl_adaptation_plan``: what nnssl's successors of nnU-Net want to know about a checkpoint.

Read by nnU-Net's development version and TaWald/nnUNet (``nnUNetv2_preprocess_like_nnssl``,
``nnUNetv2_train_pretrained``). They build Primus by a name out of a fixed list and load the encoder
strictly, position embedding included; colipri_export writes a file with one (zeros, which is the
same function). Encoders that no name of the list describes say our own class, which those readers
refuse with its name.
"""

from __future__ import annotations

from typing import Any

import torch

from colipri.architectures.primus import PRESETS
from colipri.architectures.stems import build_stem
from colipri.plans.architecture import PRIMUS, EncoderSettings
from colipri.plans.plans import Configuration, Plans

# What nnU-Net's Primus presets fix, beside their sizes.
_PRESET_OPTIONS = {
    "patch_embed_size": [8, 8, 8],
    "stem": "linear",
    "num_register_tokens": 0,
    "init_values": 0.1,
    "scale_attn_inner": True,
    "final_norm": "layer",
    "attention": None,
}


def nnssl_adaptation_plan(
    plans: Plans, configuration_name: str, prefix: str = "image_encoder."
) -> dict[str, Any]:
    """Return the adaptation plan of a checkpoint, plain data.

    Args:
        plans: What was trained.
        configuration_name: Of the plans.
        prefix: Of the encoder's names in the file's ``network_weights``.
    """
    configuration = plans.configuration(configuration_name)
    encoder = configuration.encoder
    preset = primus_preset(encoder)
    own_kwargs = encoder.to_dict()
    del own_kwargs["input_channels"]
    stem = f"{prefix}down_projection"
    return {
        "architecture_plans": {
            "arch_class_name": f"Primus{preset}" if preset else PRIMUS,
            "arch_kwargs": None if preset else own_kwargs,
            "arch_kwargs_requiring_import": None,
        },
        "pretrain_plan": {
            "dataset_name": plans.dataset_name,
            "plans_name": plans.plans_name,
            "original_median_spacing_after_transp": list(configuration.spacing),
            "image_reader_writer": plans.image_reader_writer,
            "transpose_forward": list(plans.transpose_forward),
            "transpose_backward": list(plans.transpose_backward),
            "experiment_planner_used": plans.planner,
            "configurations": {configuration_name: _configuration(configuration)},
        },
        "pretrain_num_input_channels": encoder.input_channels,
        "recommended_downstream_patchsize": list(configuration.patch_size),
        "pretrain_patch_size": list(configuration.patch_size),
        "key_to_encoder": f"{prefix}eva",
        "key_to_stem": stem,
        "keys_to_in_proj": [f"{stem}.{name}" for name in input_layers(encoder)],
        "key_to_lpe": f"{prefix}eva.pos_embed",
    }


def checkpoint_entry(plans: Plans, configuration_name: str) -> dict[str, Any]:
    """Return the entry that every checkpoint gets; none for image encoders of other packages."""
    if plans.configuration(configuration_name).architecture.network_class_name != PRIMUS:
        return {}
    return {"nnssl_adaptation_plan": nnssl_adaptation_plan(plans, configuration_name)}


def primus_preset(encoder: EncoderSettings) -> str | None:
    """Return S, B, M or L where the encoder is that stock Primus, None otherwise."""
    if any(getattr(encoder, name) != wanted for name, wanted in _PRESET_OPTIONS.items()):
        return None
    sizes = {key: getattr(encoder, key) for key in ("embed_dim", "depth", "num_heads")}
    return next((name for name, preset in PRESETS.items() if preset == sizes), None)


def input_layers(encoder: EncoderSettings) -> list[str]:
    """Return the layers of the stem whose weights depend on the number of input channels."""
    shapes = []
    for channels in (1, 2):
        with torch.device("meta"):
            stem = build_stem(
                encoder.stem,
                channels,
                encoder.embed_dim,
                encoder.patch_embed_size,
                encoder.stem_options,
            )
        shapes.append({name: tensor.shape for name, tensor in stem.state_dict().items()})
    one, two = shapes
    return [name.removesuffix(".weight") for name in one if one[name] != two[name]]


def _configuration(configuration: Configuration) -> dict[str, Any]:
    resampling = configuration.resampling_fn_data
    arguments = configuration.resampling_fn_data_kwargs.to_dict()
    return {
        "data_identifier": configuration.data_identifier,
        "preprocessor_name": configuration.preprocessor_name,
        "spacing_style": "fixed",
        "spacing": [float(step) for step in configuration.spacing],
        "patch_size": list(configuration.patch_size),
        "normalization_schemes": list(configuration.normalization_schemes),
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "resampling_fn_data": resampling,
        "resampling_fn_data_kwargs": arguments,
        "resampling_fn_mask": resampling,
        "resampling_fn_mask_kwargs": {**arguments, "is_seg": True, "order": 1},
    }
