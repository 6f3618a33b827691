"""Packages that only some commands need: imported when asked for, with one line if missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from colipri.common.errors import ColipriError


class MissingPackage(ColipriError):
    """An optional package is not installed."""


def optional_module(name: str, install: str, what_for: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        name: Of the module, such as "peft" or "pycocoevalcap.bleu.bleu_scorer".
        install: What pip has to install, such as "pycocoevalcap sacrebleu"; "": the package itself.
        what_for: Who needs it, the beginning of the message.

    Raises:
        MissingPackage: it is not installed.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise MissingPackage(
                f"{what_for} needs {package}, which is installed without {error.name}; "
                f"pip install {error.name}"
            ) from error
        remedy = install or package
        raise MissingPackage(
            f"{what_for} needs the package {package}; pip install {remedy}"
        ) from error
