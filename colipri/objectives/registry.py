"""The objectives by the name that plans use: a new one is one file, one test and one line here."""

from __future__ import annotations

from typing import Any

from colipri.common.errors import ColipriError
from colipri.objectives.contrastive import ContrastiveObjective

OBJECTIVES = {"contrastive": ContrastiveObjective}


def build_objectives(settings: dict[str, dict[str, Any]]) -> dict[str, tuple[float, Any]]:
    """Build what the plan asks for: ``{"contrastive": {"weight": 1.0, "kind": "infonce"}}``.

    Returns:
        name -> (weight, objective), in the order of the plan.

    Raises:
        ColipriError: unknown objective or option, or a weight that is not positive.
    """
    built: dict[str, tuple[float, Any]] = {}
    for name, options in settings.items():
        if name not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise ColipriError(f"the plan asks for the objective '{name}'; known are: {known}")
        arguments = {key: value for key, value in options.items() if key != "weight"}
        weight = float(options.get("weight", 1.0))
        if weight <= 0:
            raise ColipriError(f"objective '{name}' has the weight {weight}; it must be above 0")
        try:
            built[name] = (weight, OBJECTIVES[name](**arguments))
        except (TypeError, ValueError) as error:
            raise ColipriError(f"objective '{name}' in the plan: {error}") from error
    if not built:
        raise ColipriError("the plan names no objective (training.objectives is empty)")
    return built
