"""Classes by name: built in, from installed packages, from folders, or by dotted path.

A planner or trainer of your own is found without touching this package:

* an installed package declares the entry-point group ``colipri.planners`` or ``colipri.trainers``;
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
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from colipri.common.errors import ColipriError

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
        ColipriError: not found (known names are listed), not importable, or no subclass.
    """
    if ":" in name:
        return _checked(_import(name, name), name, base)
    if name in builtin:
        return _checked(_import(builtin[name], name), name, base)
    registered = {entry.name: entry for entry in entry_points(group=f"colipri.{kind}")}
    if name in registered:
        return _checked(_import(registered[name].value, name), name, base)
    found = _from_folders(name)
    if found is not None:
        return _checked(found, name, base)
    known = ", ".join(sorted({*builtin, *registered}))
    raise ColipriError(
        f"no {kind.rstrip('s')} is called '{name}'; known: {known}; your own: module:Class, "
        f"the entry-point group colipri.{kind}, or a folder in ${EXTENSION_VARIABLE}"
    )


def _import(target: str, name: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ColipriError(f"'{name}' ({target}) cannot be imported: {error}") from error


def _from_folders(name: str) -> Any:
    """Load the first file of the extension folders that defines ``class NAME``.

    The definition is looked for in the text, so that only the file in question is imported: one
    broken neighbour must not make every other class unusable.
    """
    pattern = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    for folder in os.environ.get(EXTENSION_VARIABLE, "").split(os.pathsep):
        if not folder:
            continue
        if not Path(folder).is_dir():
            raise ColipriError(f"${EXTENSION_VARIABLE} names {folder}, which is not a folder")
        for file in sorted(Path(folder).glob("*.py")):
            if pattern.search(file.read_text(encoding="utf-8")):
                return _load_file(file, name)
    return None


def _load_file(file: Path, name: str) -> Any:
    module_name = f"colipri_ext_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that the class can be pickled to worker processes
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is reported with its name
        raise ColipriError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return getattr(module, name)


def _checked(found: Any, name: str, base: type[Base]) -> type[Base]:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ColipriError(f"'{name}' is no subclass of {base.__module__}.{base.__name__}")
    return found
