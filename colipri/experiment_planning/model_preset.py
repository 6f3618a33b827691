"""``--like MODEL``: plan the network and images of a model, so that its weights can start a run.

The planner chooses an encoder by the amount of data; weights fit only an encoder of their own size,
stem and token patch. So the network, spacing, patch, window and resampling are those of the model.
Text length, batch, schedule and memory stay the planner's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from colipri.architectures.pretrained_text import pretrained_available
from colipri.checkpoints.model_source import load_model
from colipri.common.errors import ColipriError
from colipri.experiment_planning.encoders import BY_DATA, TINY, ModelSize
from colipri.experiment_planning.geometry import TOKEN, Geometry
from colipri.experiment_planning.planner import ColipriPlanner, Rationale
from colipri.experiment_planning.presets import planner_like, preset_names
from colipri.plans.architecture import PRIMUS
from colipri.plans.plans import CT_SCHEME, Configuration, Plans

_IMAGES = (  # entries of a configuration that say how its images are stored
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "storage_dtype",
    "hounsfield_range",
    "crop_to_body",
)
_WINDOW = ("mean", "std", "percentile_00_5", "percentile_99_5")  # what CTNormalization uses
_SHARED = ("pool_heads", "pool_queries", "pool_add_max", "pool", "global_transformer")


def planner_like_source(
    planner: type[ColipriPlanner], like: str
) -> tuple[type[ColipriPlanner], str | None]:
    """Return the planner that ``--like`` asks for, and the text encoder that goes with it.

    Args:
        planner: of the plan.
        like: a preset's name, or a model that every ``-m`` takes.

    Returns:
        The planner, and the name of the model's pretrained text encoder if it has one that can be
        loaded here.

    Raises:
        ColipriError: neither, or a model that cannot be planned for.
    """
    if like in preset_names():
        return planner_like(planner, like), None
    if not Path(like).exists() and "/" not in like:
        raise ColipriError(
            f"--like {like}: no preset ({', '.join(preset_names())}) and no model of this name"
        )
    model = load_model(like)
    plans = Plans.from_dict(model["plans"], f"the plan in {like}")
    text = plans.configuration(model["configuration"]).text_encoder
    name = text.name_or_path if text.source == "pretrained" else None
    if name is not None and not pretrained_available(name)[0]:
        name = None
    return planner_like_model(planner, like, plans, model["configuration"]), name


def planner_like_model(
    planner: type[ColipriPlanner], name: str, model: Plans, configuration_name: str
) -> type[ColipriPlanner]:
    """Return ``planner`` with the image side of a model.

    Args:
        planner: of the plan.
        name: of the model, for reasons and messages.
        model: its plan.
        configuration_name: its trained configuration.

    Raises:
        ColipriError: its encoder is not one that plans are made for.
    """
    source = model.configuration(configuration_name)
    _require_plannable(source, name)
    reason = f"as {name}, so that its weights fit (--like)"

    class PlannerLikeModel(planner):  # type: ignore[valid-type,misc]
        """Plans for further training of a model."""

        def choose_model(self, rationale: Rationale) -> ModelSize:
            """Return the size of the model's encoder, with a learning rate that goes with it."""
            rationale["architecture"] = reason
            return _size(source)

        def choose_geometry(self, _: str, size: ModelSize, rationale: Rationale) -> Geometry:
            """Return the model's geometry, for every configuration."""
            rationale |= {"spacing": reason, "patch_size": reason}
            (a, b, c), (p, q, r) = source.spacing, source.patch_size
            return Geometry((a, b, c), (p, q, r), {})

        def architecture(self, size: ModelSize) -> dict[str, Any]:
            """Return the model's encoder, for the channels of this data set."""
            plan = super().architecture(size)
            channels = len(self.fingerprint["channel_names"])
            there = source.encoder.input_channels
            if there not in (1, channels):
                raise ColipriError(f"{name} takes {there} channels, the data set has {channels}")
            plan["arch_kwargs"] = {
                **source.encoder.to_dict(),
                "input_channels": channels,
                "activation_checkpointing": "none",  # fitted to the memory afterwards
            }
            return dict(plan)

        def plan(self) -> Plans:
            """Plan on the model's images."""
            return _with_images(super().plan(), model, source, name)

    PlannerLikeModel.__name__ = planner.__name__  # the plan names the planner that made it
    return PlannerLikeModel


def _require_plannable(source: Configuration, name: str) -> None:
    if source.architecture.network_class_name != PRIMUS:
        raise ColipriError(f"{name} is no Primus; its encoder is used as it is and not trained")
    if list(source.token_patch_size) != [TOKEN] * 3:
        token = "x".join(map(str, source.token_patch_size))
        raise ColipriError(
            f"{name} has tokens of {token} voxels; plans are made for tokens of {TOKEN}"
        )


def _size(source: Configuration) -> ModelSize:
    encoder = source.encoder
    known = (TINY, *(size for _, size in BY_DATA))
    near = min(known, key=lambda s: (abs(s.embed_dim - encoder.embed_dim), s.stem != encoder.stem))
    return replace(
        near,
        name=f"the given model ({encoder.embed_dim} wide, {encoder.depth} deep)",
        embed_dim=encoder.embed_dim,
        depth=encoder.depth,
        num_heads=encoder.num_heads,
        stem=encoder.stem,
        shared_dim=source.embed_dim,
    )


def _with_images(plans: Plans, model: Plans, source: Configuration, name: str) -> Plans:
    """The plan with the window and resampling of the model, where the channels are alike."""
    alike = [key.casefold() for key in plans.channel_names.values()] == [
        key.casefold() for key in model.channel_names.values()
    ]
    entries = {key: getattr(source, key) for key in _IMAGES} if alike else {}
    reason = f"HU window and resampling as {name} (--like)"
    changed = []
    for one in plans.configurations.values():
        shared = {key: getattr(source, key) for key in _SHARED}
        if one.embed_dim != source.embed_dim:
            shared = {}
        why = {**one.rationale, **({"normalization_schemes": reason} if alike else {})}
        changed.append(replace(one, **entries, **shared, rationale=why))
    numbers = dict(plans.foreground_intensity_properties_per_channel)
    known = model.foreground_intensity_properties_per_channel
    for number, scheme in enumerate(source.normalization_schemes):
        if alike and scheme == CT_SCHEME and str(number) in known:
            window = {key: getattr(known[str(number)], key) for key in _WINDOW}
            numbers[str(number)] = replace(numbers[str(number)], **window)
    return replace(
        plans.with_configurations(changed),
        like=name,
        foreground_intensity_properties_per_channel=numbers,
    )
