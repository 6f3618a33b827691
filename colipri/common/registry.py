"""Classes by name: built in, from installed packages, from folders, or by dotted path.

A planner, trainer or objective of your own is found without touching this package:

* an installed package declares the entry-point group ``colipri.planners``, ``colipri.trainers`` or
  ``colipri.objectives``;
* the environment variable ``colipri_ext`` names folders of modules (separated like PATH), each
  module is looked at by file name only when the class is asked for;
* or the name given is ``package.module:Class``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from colipri.common.errors import ColipriError


class UnknownClass(ColipriError):
    """No class of this name was found."""


Base = TypeVar("Base")
EXTENSION_VARIABLE = "colipri_ext"


def find_class(kind: str, name: str, builtin: Mapping[str, str], base: type[Base]) -> type[Base]:
    """Find a class by name.

    Args:
        kind: "planners" or "trainers"; also the suffix of the entry-point group.
        name: a built-in or registered name, or "package.module:Class".
        builtin: name -> "module:Class".
        base: what the class must be a subclass of.

    Raises:
        UnknownClass: not found; known names are listed.
        ColipriError: not importable, or not a subclass.
    """
    if ":" in name:
        return _checked(load_class(name, name), name, base)
    if name in builtin:
        return _checked(load_class(builtin[name], name), name, base)
    registered = _registered(kind)
    if name in registered:
        return _checked(load_class(registered[name], name), name, base)
    found = _from_folders(rf"^class {re.escape(name)}\b")
    if found is not None:
        return _checked(getattr(found, name), name, base)
    known = ", ".join(sorted({*builtin, *registered}))
    raise UnknownClass(
        f"no {kind.rstrip('s')} is called '{name}'; known: {known}; your own: module:Class, "
        f"the entry-point group colipri.{kind}, or a folder in ${EXTENSION_VARIABLE}"
    )


def find_matching(kind: str, pattern: str, accept: Callable[[Any], bool]) -> type[Any] | None:
    """Return the first class of an entry-point group or an extension folder that is accepted.

    Args:
        kind: for example "objectives"; the suffix of the entry-point group.
        pattern: multi-line regular expression; only files whose text matches are imported.
        accept: called with every member of these modules.

    Raises:
        ColipriError: something that matches cannot be imported.
    """
    for name, target in _registered(kind).items():
        found = load_class(target, name)
        if accept(found):
            return cast(type[Any], found)
    module = _from_folders(pattern)
    if module is not None:
        for member in vars(module).values():
            if accept(member) and member.__module__ == module.__name__:
                return cast(type[Any], member)
    return None


def load_class(target: str, name: str) -> Any:
    """Import ``package.module:Class``.

    Raises:
        ColipriError: it cannot be imported; the message names ``name``.
    """
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ColipriError(f"'{name}' ({target}) cannot be imported: {error}") from error


def _registered(kind: str) -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=f"colipri.{kind}")}


def _from_folders(pattern: str) -> ModuleType | None:
    """Load the first file of the extension folders whose text matches.

    Only the file in question is imported: one broken neighbour must not make every other class
    unusable.
    """
    wanted = re.compile(pattern, re.MULTILINE)
    for folder in os.environ.get(EXTENSION_VARIABLE, "").split(os.pathsep):
        if not folder:
            continue
        if not Path(folder).is_dir():
            raise ColipriError(f"${EXTENSION_VARIABLE} names {folder}, which is not a folder")
        for file in sorted(Path(folder).glob("*.py")):
            if wanted.search(file.read_text(encoding="utf-8")):
                return _load_file(file)
    return None


def _load_file(file: Path) -> ModuleType:
    module_name = f"colipri_ext_{file.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that the class can be pickled to worker processes
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is reported with its name
        raise ColipriError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _checked(found: Any, name: str, base: type[Base]) -> type[Base]:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ColipriError(f"'{name}' is not a subclass of {base.__module__}.{base.__name__}")
    return found
