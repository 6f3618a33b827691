"""The trainers by name: the name lists the objectives, and all numbers are in the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from colipri.common.errors import ColipriError
from colipri.common.registry import UnknownClass, find_class
from colipri.objectives.registry import find_objective, parse_objectives, settings_of
from colipri.training.trainer import ColipriTrainer

BASE = ColipriTrainer.__name__
# Members of the family that the documentation explains; any other combination of letters works too.
FAMILY = ("C", "M", "CO", "CR", "CM", "CRM", "CRMO")
BUILTIN_TRAINERS = {BASE: f"{ColipriTrainer.__module__}:{BASE}"}
_LETTERS = re.compile(rf"{BASE}_[A-Z]+")


class FamilyTrainer(ColipriTrainer):
    """The objectives of the letters in its name, with the plan's options."""

    letters: ClassVar[str]

    def objective_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the plan's options for these objectives, or the defaults."""
        return settings_of(parse_objectives(self.letters), self.training_plan.objectives)


def find_trainer(name: str) -> type[ColipriTrainer]:
    """Find a trainer by name: ``ColipriTrainer_`` and letters of objectives, or your own class.

    Raises:
        ColipriError: no such class, or a letter that no objective has.
    """
    try:
        return find_class("trainers", name, BUILTIN_TRAINERS, ColipriTrainer)
    except UnknownClass:
        if not _LETTERS.fullmatch(name):
            raise
    return family_trainer(name)


@cache
def family_trainer(name: str) -> type[ColipriTrainer]:
    """``ColipriTrainer_CRM``: a trainer of the objectives C, R and M.

    Raises:
        ColipriError: a letter that no objective has.
    """
    letters = name.removeprefix(f"{BASE}_")
    try:
        for letter in letters:
            find_objective(letter)
    except ColipriError as error:
        raise ColipriError(
            f"no trainer is called '{name}' (but for example {BASE}_{FAMILY[-1]}): {error}"
        ) from error
    return type(name, (FamilyTrainer,), {"letters": letters, "__module__": __name__})


def __getattr__(name: str) -> type[ColipriTrainer]:
    """Let your own trainer derive from a member of the family that it imports by name."""
    if _LETTERS.fullmatch(name):
        return family_trainer(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
