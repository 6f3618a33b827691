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
from colipri.common.settings import entries, nearest, unknown_entry
from colipri.plans.architecture import ArchitecturePlan, EncoderSettings
from colipri.plans.augmentation import AugmentationSettings
from colipri.plans.plans import Configuration, Plans
from colipri.plans.training import MixingSettings, TrainingPlan

# What the stored cases were made from; training cannot change it any more.
STORED = (
    "data_identifier",
    "preprocessor_name",
    "spacing",
    "token_patch_size",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "storage_dtype",
    "hounsfield_range",
    "crop_to_body",
)
_PREDICTED = ("memory_estimate", "compute_estimate", "because")
REASON = "set by hand (--set)"
_INNER: dict[str, type[Any]] = {
    "training": TrainingPlan,
    "training.mixing": MixingSettings,
    "augmentation": AugmentationSettings,
    "architecture": EncoderSettings,
}
ObjectiveName = Callable[[str], str]


def parse_assignments(texts: Sequence[str] | None, flag: str = "--set") -> dict[str, Any]:
    """``["batch_size=8", "mixing.schedule=alternating"]`` -> path -> value.

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
            raise ColipriError(f"{flag} {text}: say PATH=VALUE, for example batch_size=8")
        try:
            values[path] = json.loads(value)
        except json.JSONDecodeError:
            values[path] = value
    return values


def set_in_plans(
    plans: Plans, values: Mapping[str, Any], objective_name: ObjectiveName, flag: str = "--set"
) -> Plans:
    """The plan with entries replaced, checked again.

    Args:
        plans: a whole plan.
        values: path -> value; a path applies to all configurations unless it begins with the name
            of one.
        objective_name: letter or name of an objective -> its name.
        flag: for the message.

    Raises:
        ColipriError: an unknown path (the nearest name is suggested), or a wrong type or range.
    """
    for path, value in values.items():
        first, _, rest = path.partition(".")
        if first in plans.configurations and rest:
            names, inner = [first], rest
        elif first in _plan_entries() and first != "configurations":
            plans = _set_plan_entry(plans, path, value, flag)
            continue
        else:
            names, inner = list(plans.configurations), path
        changed = [
            set_in_configuration(plans.configurations[name], {inner: value}, objective_name, flag)
            for name in names
        ]
        plans = Plans.from_dict(plans.with_configurations(changed).to_json(), plans.source)
    return plans


def set_in_configuration(
    configuration: Configuration,
    values: Mapping[str, Any],
    objective_name: ObjectiveName,
    flag: str = "--set",
) -> Configuration:
    """As :func:`set_in_plans`, for one configuration; every change is noted in its reasons."""
    content = configuration.to_dict()
    for path, value in values.items():
        keys = full_path(path, objective_name, flag)
        _put(content, keys, value)
        if keys == ["activation_checkpointing"]:  # stands in two places
            _put(content, ["architecture", "arch_kwargs", "activation_checkpointing"], value)
        content["because"] = {**content["because"], path_text(keys): REASON}
    try:
        checked = Configuration.from_dict(content)
    except ColipriError as error:
        shown = ", ".join(f"{path}={json.dumps(value)}" for path, value in values.items())
        raise ColipriError(f"{flag} {shown}: {error}") from error
    return replace(checked, name=configuration.name)


def full_path(path: str, objective_name: ObjectiveName, flag: str = "--set") -> list[str]:
    """The keys of a path, short forms spelled out.

    Raises:
        ColipriError: its beginning is not an entry of a configuration.
    """
    keys = path.split(".")
    if len(keys[0]) == 1 and keys[0].isupper():  # M.mask_ratio
        keys = ["objectives", *keys]
    if keys[0] in ("objectives", "mixing"):
        keys = ["training", *keys]
    if keys[:2] == ["training", "objectives"] and len(keys) > 2:
        keys[2] = objective_name(keys[2])
    inner = {about.key or name for name, about in entries(ArchitecturePlan).items()}
    if keys[0] == "architecture" and len(keys) > 1 and keys[1] not in inner:
        keys.insert(1, "arch_kwargs")
    known = configuration_entries()
    if keys[0] in _PREDICTED or keys[0] not in known:
        raise ColipriError(f"{flag} {path}: {_unknown(keys[0], known)}")
    return keys


def path_text(keys: Iterable[str]) -> str:
    """["training", "ema_decay"] -> "training.ema_decay"."""
    return ".".join(keys)


def configuration_entries() -> list[str]:
    """Names that a path may begin with."""
    return [about.key or n for n, about in entries(Configuration).items() if about.stored]


def refuse_stored(paths: Iterable[str], objective_name: ObjectiveName) -> None:
    """Training may not change what the stored cases were made from.

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
    """The value that a path of a configuration's reasons speaks of; None where there is none."""
    value: Any = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _unknown(name: str, known: Collection[str]) -> str:
    """Say that a beginning is unknown; a name from inside is given its full path."""
    from_inside = {
        (about.key or inner): f"{outer}.{about.key or inner}"
        for outer, cls in _INNER.items()
        for inner, about in entries(cls).items()
    }
    close = nearest(name, from_inside, 0.8)
    if close is not None:
        return f"there is no entry '{name}'; did you mean '{from_inside[close]}'?"
    return unknown_entry(name, known)


def _plan_entries() -> set[str]:
    return {about.key or name for name, about in entries(Plans).items() if about.stored}


def _set_plan_entry(plans: Plans, path: str, value: Any, flag: str) -> Plans:
    content = plans.to_json()
    _put(content, path.split("."), value)
    try:
        return Plans.from_dict(content, plans.source)
    except ColipriError as error:
        raise ColipriError(f"{flag} {path}={json.dumps(value)}: {error}") from error


def _put(content: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a value at any depth; levels on the way are copied, missing ones are made."""
    for key in keys[:-1]:
        inner = content.get(key)
        content[key] = dict(inner) if isinstance(inner, Mapping) else {}
        content = content[key]
    content[keys[-1]] = value
