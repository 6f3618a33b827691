"""Which objectives a checkpoint was trained with, and which of them are missing here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colipri.checkpoints.checkpoint_file import CORE_PREFIXES
from colipri.common.errors import ColipriError
from colipri.objectives.base import Objective
from colipri.objectives.registry import build_objectives, find_objective


def trained_objectives(checkpoint: Mapping[str, Any]) -> dict[str, Objective]:
    """Build the objectives that a checkpoint was trained with; none where it does not say.

    Objectives that are not installed here are left out; :func:`missing_objectives` names them.
    """
    settings = _settings(checkpoint)
    missing = missing_objectives(checkpoint)
    installed = {name: options for name, options in settings.items() if name not in missing}
    return build_objectives(installed) if installed else {}


def missing_objectives(checkpoint: Mapping[str, Any]) -> list[str]:
    """Name the objectives of a checkpoint that are not installed here."""
    missing = []
    for name in _settings(checkpoint):
        try:
            find_objective(name)
        except ColipriError:
            missing.append(name)
    return missing


def places_in_training(checkpoint: Mapping[str, Any]) -> str:
    """Say what the model was told of places, a sentence for pages that show where it looks."""
    if any(objective.reads_label_maps for objective in trained_objectives(checkpoint).values()):
        return "The label maps of training cases said where findings are (objective S)."
    return "No location was ever given in training."


def left_out_heads(checkpoint: Mapping[str, Any]) -> list[str]:
    """Name the modules in a checkpoint's weights that no installed objective of it has."""
    known = {name for o in trained_objectives(checkpoint).values() for name in o.head_names}
    heads = (n for n in checkpoint["network_weights"] if not n.startswith(CORE_PREFIXES))
    return sorted({name.partition(".")[0] for name in heads} - known)


def _settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return dict((checkpoint.get("settings") or {}).get("objectives") or {})
