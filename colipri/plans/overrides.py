"""``--set PATH=VALUE``: the one way to set a number of a plan from the command line.

A path names an entry of a configuration as it stands in the plans file, with dots between levels.
Short forms: ``objectives.M.mask_ratio`` for ``training.objectives.<name of M>.mask_ratio``,
``mixing.schedule`` for ``training.mixing.schedule``, and ``architecture.drop_path_rate`` for
``architecture.arch_kwargs.drop_path_rate``. ``3d_lowres.batch_size`` addresses one configuration,
``orientation`` and the like the plan itself. Values are JSON; what is not JSON is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from colipri.common.errors import ColipriError
from colipri.common.settings import SettingsError, entries, nearest, unknown_entry
from colipri.plans.architecture import ArchitecturePlan, EncoderSettings
from colipri.plans.augmentation import AugmentationSettings
from colipri.plans.plans import Configuration, Plans
from colipri.plans.training import MixingSettings, TrainingPlan
from colipri.text.prompts.captions import CaptionSettings

# What the stored voxels depend on. The patch size only shapes the chunks, which affects speed.
VOXEL_ENTRIES = (
    "spacing",
    "token_patch_size",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "storage_dtype",
)
OPTIONAL_VOXEL_ENTRIES = ("hounsfield_range", "crop_to_body")  # for encoders trained elsewhere
# What the stored cases were made from; training cannot change it any more.
STORED = ("data_identifier", "preprocessor_name", *VOXEL_ENTRIES, *OPTIONAL_VOXEL_ENTRIES)
_PREDICTED = ("memory_estimate", "compute_estimate", "because")
REASON = "set by hand (--set)"
# Numbers that stand in two places: setting one sets the other.
_CHECKPOINTING = ("activation_checkpointing",)
_TOKEN = ("token_patch_size",)
_ENCODER = ("architecture", "arch_kwargs")
_TWINS: dict[tuple[str, ...], tuple[str, ...]] = {
    _CHECKPOINTING: (*_ENCODER, "activation_checkpointing"),
    (*_ENCODER, "activation_checkpointing"): _CHECKPOINTING,
    _TOKEN: (*_ENCODER, "patch_embed_size"),
    (*_ENCODER, "patch_embed_size"): _TOKEN,
}
_INNER: dict[str, type[Any]] = {
    "training": TrainingPlan,
    "captions": CaptionSettings,
    "training.mixing": MixingSettings,
    "augmentation": AugmentationSettings,
    "architecture": EncoderSettings,
}
ObjectiveName = Callable[[str], str]


def parse_assignments(texts: Sequence[str] | None, flag: str = "--set") -> dict[str, Any]:
    """Parse ``["batch_size=8", "mixing.schedule=alternating"]`` to path -> value.

    Args:
        texts: as typed.
        flag: for the message.

    Raises:
        ColipriError: one of them is not PATH=VALUE.
    """
    values: dict[str, Any] = {}
    for text in texts or ():
        path, sign, value = text.partition("=")
        if not (path and sign and value):
            raise ColipriError(f"{flag} {text}: write PATH=VALUE, for example batch_size=8")
        try:
            values[path] = json.loads(value)
        except json.JSONDecodeError:
            values[path] = value
    return values


def set_in_plans(
    plans: Plans, values: Mapping[str, Any], objective_name: ObjectiveName, flag: str = "--set"
) -> Plans:
    """Return the plan with entries replaced, checked again.

    Args:
        plans: a whole plan.
        values: path -> value; a path applies to all configurations unless it begins with the name
            of one.
        objective_name: letter or name of an objective -> its name.
        flag: for the message.

    Raises:
        ColipriError: an unknown path (the nearest name is suggested), or a wrong type or range.
    """
    own: dict[str, Any] = {}
    by_configuration: dict[str, dict[str, Any]] = {name: {} for name in plans.configurations}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        if first in plans.configurations and rest:
            by_configuration[first][rest] = value
        elif first in _plan_entries() and first != "configurations":
            own[path] = value
        else:
            if first not in configuration_entries() and nearest(first, _plan_entries(), 0.8):
                problem = unknown_entry(first, _plan_entries())
                raise ColipriError(f"{flag} {path}: the plan {problem}")
            for chosen in by_configuration.values():
                chosen[path] = value
    # all at once, because numbers that depend on each other are only right together
    changed = [
        set_in_configuration(plans.configurations[name], chosen, objective_name, flag)
        for name, chosen in by_configuration.items()
    ]
    content = plans.to_json()
    content["configurations"] = {
        configuration.name: configuration.to_dict()
        for configuration in _with_own_cases(changed, plans.plans_name)
    }
    for path, value in own.items():
        _put(content, path.split("."), value)
    return replace(Plans.from_dict(content, f"{flag} {_shown(values)}"), source=plans.source)


def set_in_configuration(
    configuration: Configuration,
    values: Mapping[str, Any],
    objective_name: ObjectiveName,
    flag: str = "--set",
) -> Configuration:
    """Set values in one configuration, as :func:`set_in_plans`; its reasons note every change.

    Args:
        configuration: of a plan.
        values: path -> value.
        objective_name: letter or name of an objective -> its name.
        flag: of the command line, for messages.

    Raises:
        ColipriError: an unknown path or a wrong value.
    """
    if not values:
        return configuration
    content = configuration.to_dict()
    by_keys = {tuple(full_path(path, objective_name, flag)): v for path, v in values.items()}
    reasons = dict(configuration.rationale)
    for keys, value in by_keys.items():
        _put(content, keys, value)
        twin = _TWINS.get(keys)
        if twin is not None and twin not in by_keys:
            _put(content, twin, value)
        entry = keys[-1] if keys[:-1] == ("training",) and keys[-1] in reasons else path_text(keys)
        reasons[entry] = REASON
    content["because"] = reasons
    try:
        checked = Configuration.from_dict(content)
    except SettingsError as error:
        subject = "" if error.path else "the plan "
        raise ColipriError(f"{flag} {_shown(values)}: {subject}{error}") from error
    return replace(checked, name=configuration.name)


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(f"{path}={json.dumps(value)}" for path, value in values.items())


def _with_own_cases(changed: Sequence[Configuration], plans_name: str) -> list[Configuration]:
    """Configurations that shared their stored cases and now differ get cases of their own."""
    owners: dict[str, Configuration] = {}
    result = []
    for configuration in changed:
        owner = owners.setdefault(configuration.data_identifier, configuration)
        if any(getattr(owner, key) != getattr(configuration, key) for key in STORED):
            identifier = f"{plans_name}_{configuration.name}"
            configuration = replace(configuration, data_identifier=identifier)
        result.append(configuration)
    return result


def full_path(path: str, objective_name: ObjectiveName, flag: str = "--set") -> list[str]:
    """Return the keys of a path, with short forms spelled out.

    Args:
        path: as typed.
        objective_name: letter or name of an objective -> its name.
        flag: of the command line, for messages.

    Raises:
        ColipriError: its beginning is not an entry of a configuration.
    """
    keys = path.split(".")
    if len(keys) > 1 and len(keys[0]) == 1 and keys[0].isupper():  # M.mask_ratio
        keys = ["objectives", *keys]
    if keys[0] in ("objectives", "mixing"):
        keys = ["training", *keys]
    if keys[:2] == ["training", "objectives"] and len(keys) > 2:
        *name, option = keys[2:] if len(keys) > 3 else [*keys[2:], ""]
        keys = [*keys[:2], objective_name(path_text(name)), *([option] if option else [])]
    inner = {about.key or name for name, about in entries(ArchitecturePlan).items()}
    if keys[0] == "architecture" and len(keys) > 1 and keys[1] not in inner:
        keys.insert(1, "arch_kwargs")
    known = [name for name in configuration_entries() if name not in _PREDICTED]
    if keys[0] not in known:
        raise ColipriError(f"{flag} {path}: the plan {_unknown(keys[0], known)}")
    return keys


def path_text(keys: Iterable[str]) -> str:
    """Join ["training", "ema_decay"] to "training.ema_decay"."""
    return ".".join(keys)


def configuration_entries() -> list[str]:
    """Return the names that a path may begin with."""
    return [about.key or n for n, about in entries(Configuration).items() if about.stored]


def refuse_stored(paths: Iterable[str], objective_name: ObjectiveName) -> None:
    """Refuse that training changes what the stored cases were made from.

    Raises:
        ColipriError: one of the paths does; the message says what to do.
    """
    for path in paths:
        first = full_path(path, objective_name)[0]
        if first in STORED:
            raise ColipriError(
                f"--set {path}: the preprocessed cases were made with the plan's {first}; plan "
                "under another name (colipri_plan_experiment -overwrite_plans_name NAME --set "
                f"{path}=...), preprocess, and train with -p NAME"
            )


def value_at(content: Mapping[str, Any], path: str) -> Any:
    """Return the value that a path of a configuration's reasons speaks of; None where there is
    none.
    """
    value: Any = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _unknown(name: str, known: Collection[str]) -> str:
    """Say that a plan lacks an entry, to be read after "the plan"; a name from inside is given its
    full path."""
    from_inside = {
        (about.key or inner): f"{outer}.{about.key or inner}"
        for outer, cls in _INNER.items()
        for inner, about in entries(cls).items()
    }
    if name in _PREDICTED:
        return f"has no entry '{name}' to set; the planner writes it"
    close = nearest(name, from_inside, 0.8)
    if close is not None:
        return f"has no entry '{name}'; did you mean '{from_inside[close]}'?"
    return unknown_entry(name, known)


def _plan_entries() -> set[str]:
    return {about.key or name for name, about in entries(Plans).items() if about.stored}


def _put(content: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a value at any depth; levels on the way are copied, missing ones are made."""
    for key in keys[:-1]:
        inner = content.get(key)
        content[key] = dict(inner) if isinstance(inner, Mapping) else {}
        content = content[key]
    content[keys[-1]] = value
