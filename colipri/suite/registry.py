"""All evaluations by name: those of this package, then those of installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from colipri.common.errors import ColipriError
from colipri.common.registry import load_class
from colipri.suite.base import Evaluation
from colipri.suite.builtin import BUILTIN

GROUP = "colipri.evaluations"


def all_evaluations() -> dict[str, Evaluation]:
    """Return name -> evaluation, in the order in which they run.

    Raises:
        ColipriError: an entry point cannot be imported or is no evaluation, or uses a taken name.
    """
    found = dict(BUILTIN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        evaluation = load_class(entry.value, entry.name)
        if not isinstance(evaluation, Evaluation):
            raise ColipriError(f"'{entry.name}' ({entry.value}) is not a colipri.suite Evaluation")
        if entry.name in found:
            raise ColipriError(f"two evaluations are called '{entry.name}'; rename {entry.value}")
        found[entry.name] = evaluation
    return found


def choose(
    only: Sequence[str] | None = None, skip: Sequence[str] | None = None
) -> dict[str, Evaluation]:
    """Return some evaluations.

    Args:
        only: Names; default: all.
        skip: Names to leave out.

    Raises:
        ColipriError: an unknown name, or none is left.
    """
    known = all_evaluations()
    for name in (*(only or ()), *(skip or ())):
        if name not in known:
            raise ColipriError(f"no evaluation is called '{name}'; known: {', '.join(known)}")
    chosen = {
        name: one
        for name, one in known.items()
        if (only is None or name in only) and name not in (skip or ())
    }
    if not chosen:
        raise ColipriError("no evaluation is left to run")
    return chosen
