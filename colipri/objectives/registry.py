"""Objectives by letter, name or class: built in, registered by a package, in a folder, or anywhere.

Built in are the classes in this folder: a new file is found without being listed anywhere. Others
are found like planners and trainers (colipri.common.registry): through the entry-point group
``colipri.objectives``, in a folder named by ``$colipri_ext``, or as ``module:Class``. A plan or
checkpoint names an objective as it was asked for, so it is found again in the same way.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from torch import nn

import colipri.objectives
from colipri.common.errors import ColipriError
from colipri.common.registry import find_matching, load_class
from colipri.objectives.base import HeadSizes, Objective, option_values

KIND = "objectives"
Settings = Mapping[str, Mapping[str, Any]]  # name or module:Class -> options


@cache
def builtin_objectives() -> dict[str, type[Objective]]:
    """Name -> class, of all modules in this folder; contrastive first, then by name."""
    found: dict[str, type[Objective]] = {}
    for module in pkgutil.iter_modules(colipri.objectives.__path__, "colipri.objectives."):
        if module.name != __name__:
            members = vars(importlib.import_module(module.name)).values()
            for cls in members:
                if _is_objective(cls) and cls.__module__ == module.name:
                    found[cls.name] = cls
    return found


def find_objective(key: str) -> type[Objective]:
    """Find an objective.

    Args:
        key: a letter, a name, or ``module:Class``.

    Raises:
        ColipriError: there is none, it cannot be imported, it lacks a part, or it takes the letter
            or name of a built-in objective.
    """
    builtin = builtin_objectives()
    for name, cls in builtin.items():
        if key in (name, cls.letter):
            return cls
    if ":" in key:
        return _checked(load_class(key, key), key)
    found = find_matching(
        KIND,
        _names_objective(key),
        lambda cls: _is_objective(cls) and key in (cls.letter, cls.name),
    )
    if found is None:
        raise ColipriError(_not_found(key))
    return _checked(found, f"{found.__module__}:{found.__name__}")


def _names_objective(key: str) -> str:
    """Pattern of a class attribute in the text of a file: only that file is imported."""
    attribute = "letter" if len(key) == 1 else "name"
    return rf"^    {attribute}(?:\s*:[^=\n]+)?\s*=\s*[\"']{key}[\"']"


def _not_found(key: str) -> str:
    known = {cls.letter: name for name, cls in builtin_objectives().items()}
    close = difflib.get_close_matches(key, known.values(), 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    what = "has the letter" if len(key) == 1 else "is called"
    return (
        f"no objective {what} '{key}'{hint}; known: "
        + ", ".join(f"{letter} ({name})" for letter, name in known.items())
        + f"; your own: module:Class, the entry-point group colipri.{KIND}, or a folder in "
        "$colipri_ext"
    )


def _is_objective(cls: Any) -> bool:
    return inspect.isclass(cls) and issubclass(cls, Objective) and bool(cls.name or cls.letter)


def _checked(cls: Any, where: str) -> type[Objective]:
    """Return a foreign class if it is complete.

    Raises:
        ColipriError: it is not an objective, lacks a part, or its letter or name is taken.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Objective)):
        raise ColipriError(
            f"'{where}' is not a subclass of {Objective.__module__}.{Objective.__name__}"
        )
    if not cls.name:
        raise ColipriError(f"objective {where} has no name: set the class attribute 'name'")
    letter = cls.letter
    if not (len(letter) == 1 and letter.isascii() and letter.isupper()):
        raise ColipriError(f"objective {where}: letter must be one capital letter, not '{letter}'")
    for name, other in builtin_objectives().items():
        if cls.name == name or letter == other.letter:
            taken = f"name '{name}'" if cls.name == name else f"letter '{letter}'"
            raise ColipriError(
                f"objective {where}: the {taken} belongs to '{name}'; choose another"
            )
    losses = ("batch_loss", "pair_losses", "image_losses")
    if all(getattr(cls, method) is getattr(Objective, method) for method in losses):
        raise ColipriError(f"objective {where} computes no loss: it needs {' or '.join(losses)}")
    if cls.heads is not Objective.heads and not cls.head_names:
        raise ColipriError(f"objective {where} has heads but does not list them in head_names")
    return cls


# ---------------------------------------------------------------------- settings of a run


def parse_objectives(text: str) -> list[str]:
    """``CRM`` -> C, R, M; or letters, names and ``module:Class`` separated by commas.

    Raises:
        ColipriError: one of them does not exist, or stands there twice.
    """
    keys = [part.strip() for part in text.split(",")] if "," in text or ":" in text else [*text]
    if not "".join(keys):
        raise ColipriError("name at least one objective, for example CRM")
    names = [key if ":" in key else find_objective(key).name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise ColipriError(f"the objective '{name}' is listed twice in '{text}'")
    return names


def build_objective(key: str, options: Mapping[str, Any]) -> Objective:
    """Build one objective with its options.

    Raises:
        ColipriError: unknown objective or option (the nearest name is suggested), or a value out of
            range.
    """
    cls = find_objective(key)
    known = [entry.name for entry in fields(cls)]
    given = {cls.renamed.get(name, name): value for name, value in options.items()}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ColipriError(
                f"objective '{cls.name}' has no option '{name}'; {hint}known: {', '.join(known)}"
            )
    try:
        return cls(**given)
    except Exception as error:  # whatever a foreign class raises is reported with its name
        raise ColipriError(f"objective '{cls.name}': {error}") from error


def build_objectives(settings: Settings) -> dict[str, Objective]:
    """Build what a plan or a command asks for.

    Args:
        settings: for example ``{"contrastive": {"weight": 1.0, "kind": "infonce"}}``.

    Returns:
        Name -> objective, in the order of the settings.

    Raises:
        ColipriError: see :func:`build_objective`; or two of one letter, or none at all.
    """
    built: dict[str, Objective] = {}
    letters: dict[str, str] = {}
    for key, options in settings.items():
        objective = build_objective(key, options)
        if objective.name in built:
            raise ColipriError(f"the objective '{objective.name}' is listed twice in the settings")
        other = letters.setdefault(objective.letter, objective.name)
        if other != objective.name:
            raise ColipriError(
                f"'{other}' and '{objective.name}' both have the letter '{objective.letter}'"
            )
        built[objective.name] = objective
    if not built:
        raise ColipriError("no objective is trained (training.objectives is empty)")
    return built


def complete_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the same settings with every option, including those that were left out.

    Raises:
        ColipriError: see :func:`build_objective`.
    """
    return {key: option_values(build_objective(key, given)) for key, given in settings.items()}


def settings_of(names: Iterable[str], planned: Settings) -> dict[str, dict[str, Any]]:
    """Return the plan's options of the named objectives, or the defaults if it has none."""
    return complete_settings({name: planned.get(name, {}) for name in names})


def settings_of_new_plans(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return all options of the named objectives as new plans write them."""
    return complete_settings({name: find_objective(name).planned for name in names})


# ---------------------------------------------------------------------- parts of the model


def add_heads(model: nn.Module, objectives: Mapping[str, Objective], sizes: HeadSizes) -> None:
    """Add the modules of all objectives to a model, under the names in their ``head_names``.

    Args:
        model: changed in place.
        objectives: name -> objective.
        sizes: that the modules depend on.

    Raises:
        ColipriError: two objectives use one name, or one that the model has already.
    """
    for objective in objectives.values():
        heads = objective.heads(sizes)
        if not set(heads) <= set(objective.head_names):
            raise ColipriError(
                f"objective '{objective.name}' built the heads {', '.join(heads) or 'none'}, its "
                f"head_names are {', '.join(objective.head_names) or 'none'}"
            )
        for name, head in heads.items():
            if hasattr(model, name):
                raise ColipriError(
                    f"objective '{objective.name}' adds the head '{name}', which exists already"
                )
            model.add_module(name, head)


def heads_of(model: nn.Module, objective: Objective) -> dict[str, nn.Module]:
    """Return the modules of an objective in a model."""
    return {
        name: model.get_submodule(name) for name in objective.head_names if hasattr(model, name)
    }
