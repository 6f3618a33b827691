"""Checks of plans that people have edited: one line that names the entry and says what is wrong."""

from __future__ import annotations

from typing import Any

from colipri.common.errors import ColipriError

PLANS_VERSION = 1
Kinds = dict[str, type | tuple[type, ...]]
_TOP_LEVEL: Kinds = {
    "dataset_name": str,
    "plans_name": str,
    "orientation": str,
    "channel_names": dict,
    "findings": list,
    "foreground_intensity_properties_per_channel": dict,
    "configurations": dict,
}
_CONFIGURATION: Kinds = {
    "data_identifier": str,
    "spacing": list,
    "patch_size": list,
    "token_patch_size": list,
    "batch_size": int,
    "micro_batch_size": int,
    "activation_checkpointing": str,
    "normalization_schemes": list,
    "use_mask_for_norm": list,
    "resampling_fn_data": str,
    "resampling_fn_data_kwargs": dict,
    "storage_dtype": str,
    "architecture": dict,
    "text_encoder": dict,
    "max_text_tokens": int,
    "embed_dim": int,
    "training": dict,
    "augmentation": dict,
}
_TRAINING: Kinds = {
    "objectives": dict,
    "num_epochs": int,
    "num_iterations_per_epoch": int,
    "learning_rate": (int, float),
    "weight_decay": (int, float),
    "betas": list,
    "warmup_iterations": int,
    "gradient_clip": (int, float),
}
_CHOICES = {
    "activation_checkpointing": ("none", "mlp", "full"),
    "storage_dtype": ("int16", "float16"),
}


def check_plans(raw: dict[str, Any], source: str) -> None:
    """Check the content of a plans file.

    Args:
        raw: the content.
        source: named in messages.

    Raises:
        ColipriError: another version, something missing, or values that cannot be.
    """
    version = raw.get("colipri_plans_version")
    if version != PLANS_VERSION:
        raise ColipriError(
            f"{source} has plans version {version}, this colipri reads version {PLANS_VERSION}; "
            "plan again with colipri_plan_experiment"
        )
    _check_types(raw, _TOP_LEVEL, source)
    if not raw["configurations"]:
        raise ColipriError(f"{source} has no configurations")
    for name, configuration in raw["configurations"].items():
        where = f"{source}, configuration {name}"
        _check_configuration(configuration, where)
        _check_channels(configuration, len(raw["channel_names"]), where)


def _check_configuration(raw: Any, where: str) -> None:
    if not isinstance(raw, dict):
        raise ColipriError(f"{where} must be an object")
    _check_types(raw, _CONFIGURATION, where)
    _check_geometry(raw, where)
    for entry in ("batch_size", "micro_batch_size", "max_text_tokens", "embed_dim"):
        if raw[entry] < 1:
            raise ColipriError(f"{where}: {entry} must be at least 1, not {raw[entry]}")
    for entry, choices in _CHOICES.items():
        if raw[entry] not in choices:
            raise ColipriError(
                f"{where}: {entry} '{raw[entry]}' must be one of {', '.join(choices)}"
            )
    _check_image_encoder(raw, where)
    _check_text_encoder(raw, where)
    _check_types(raw["training"], _TRAINING, f"{where}, training")
    for entry in ("num_epochs", "num_iterations_per_epoch", "learning_rate"):
        if raw["training"][entry] <= 0:
            raise ColipriError(f"{where}, training: {entry} must be above 0")


def _check_geometry(raw: dict[str, Any], where: str) -> None:
    for entry in ("spacing", "patch_size", "token_patch_size"):
        values = raw[entry]
        if len(values) != 3 or not all(_is_positive_number(value) for value in values):
            raise ColipriError(f"{where}: {entry} must be three positive numbers, not {values}")
        if entry != "spacing" and any(value != int(value) for value in values):
            raise ColipriError(f"{where}: {entry} must be whole numbers, not {values}")
    pairs = zip(raw["patch_size"], raw["token_patch_size"], strict=True)
    if any(size % token for size, token in pairs):
        raise ColipriError(
            f"{where}: patch_size {raw['patch_size']} must be multiples of the token patch "
            f"{raw['token_patch_size']}"
        )


def _check_channels(raw: dict[str, Any], channels: int, where: str) -> None:
    for entry in ("normalization_schemes", "use_mask_for_norm"):
        if len(raw[entry]) != channels:
            raise ColipriError(
                f"{where}: {entry} has {len(raw[entry])} values for {channels} channel(s)"
            )
    planned = raw["architecture"]["arch_kwargs"].get("input_channels", channels)
    if planned != channels:
        raise ColipriError(
            f"{where}: arch_kwargs.input_channels is {planned}, channel_names has {channels}"
        )


def _check_image_encoder(raw: dict[str, Any], where: str) -> None:
    """Numbers that stand in two places must agree, or one of them would be ignored silently."""
    arch = raw["architecture"].get("arch_kwargs")
    if not isinstance(arch, dict):
        raise ColipriError(f"{where}: architecture needs arch_kwargs")
    for entry, inner in (
        ("activation_checkpointing", "activation_checkpointing"),
        ("token_patch_size", "patch_embed_size"),
    ):
        if inner in arch and arch[inner] != raw[entry]:
            raise ColipriError(
                f"{where}: {entry} is {raw[entry]}, architecture.arch_kwargs.{inner} is "
                f"{arch[inner]}; write the same in both"
            )
    dim, heads = arch.get("embed_dim"), arch.get("num_heads")
    if dim is not None and heads is not None and (heads < 1 or dim % (6 * heads)):
        raise ColipriError(
            f"{where}: arch_kwargs.embed_dim {dim} with num_heads {heads}: it must be a multiple "
            "of 6 x num_heads (three axes of sine-cosine pairs)"
        )
    pool_heads = raw.get("pool_heads")
    if pool_heads is not None and (pool_heads < 1 or raw["embed_dim"] % pool_heads):
        raise ColipriError(
            f"{where}: embed_dim {raw['embed_dim']} is no multiple of pool_heads {pool_heads}"
        )


def _check_text_encoder(raw: dict[str, Any], where: str) -> None:
    encoder = raw["text_encoder"]
    source = encoder.get("source")
    if source not in ("pretrained", "scratch"):
        raise ColipriError(f"{where}: text_encoder.source must be pretrained or scratch")
    if source == "pretrained" and not encoder.get("name_or_path"):
        raise ColipriError(f"{where}: text_encoder.name_or_path must name a pretrained encoder")
    positions = (encoder.get("arch_kwargs") or {}).get("max_position_embeddings")
    if positions is not None and raw["max_text_tokens"] > positions:
        raise ColipriError(
            f"{where}: max_text_tokens {raw['max_text_tokens']} is more than the text encoder's "
            f"max_position_embeddings {positions}"
        )


def _check_types(raw: dict[str, Any], expected: Kinds, where: str) -> None:
    for entry, kind in expected.items():
        if entry not in raw:
            raise ColipriError(f"{where} lacks '{entry}'")
        value = raw[entry]
        if not isinstance(value, kind) or (kind is not dict and isinstance(value, bool)):
            name = "number" if isinstance(kind, tuple) else kind.__name__
            raise ColipriError(f"{where}: {entry} must be a {name}, not {value!r:.60}")


def _is_positive_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
