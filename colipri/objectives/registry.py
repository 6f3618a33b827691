"""The objectives by the name that plans use: a new one is one file, one test and one line here."""

from __future__ import annotations

from typing import Any

from colipri.common.errors import ColipriError
from colipri.objectives.contrastive import ContrastiveObjective
from colipri.objectives.masked_image_modelling import MaskedImageModellingObjective
from colipri.objectives.opposite_sentence import OppositeSentenceObjective
from colipri.objectives.report_generation import ReportGenerationObjective

OBJECTIVES: dict[str, Any] = {
    "contrastive": ContrastiveObjective,
    "report_generation": ReportGenerationObjective,
    "masked_image_modelling": MaskedImageModellingObjective,
    "opposite_sentence": OppositeSentenceObjective,
}
# Objectives that compare the cases of a whole batch, and those that look at each case by itself.
COMPARING = ("contrastive", "opposite_sentence")
NEED_REPORTS = ("contrastive", "report_generation", "opposite_sentence")

# The letters of trainers' names, and what an objective is given where the plan says nothing of it.
LETTERS = {
    "C": "contrastive",
    "R": "report_generation",
    "M": "masked_image_modelling",
    "O": "opposite_sentence",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "contrastive": {"weight": 1.0, "kind": "infonce"},
    # The paper's weights are not known; all of ours are 1, untuned, except for O's. (CoCa weighs
    # captions twice as much as contrast: arXiv 2205.01917.)
    "report_generation": {"weight": 1.0, "decoder_depth": 6},
    # mask, decoder and target are nnssl's
    "masked_image_modelling": {"weight": 1.0, "mask_ratio": 0.75, "decoder_depth": 2},
    # weight and number of pairs as in public re-implementations of the opposite sentence loss
    "opposite_sentence": {"weight": 0.5, "pairs": 8},
}


def with_defaults(planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The plan's objectives with the defaults for what it leaves out."""
    return {name: {**DEFAULTS.get(name, {}), **options} for name, options in planned.items()}


def settings_of_letters(letters: str, planned: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a family member trains: the plan's options where it has them, else the defaults.

    Args:
        letters: of the family, for example "CRM".
        planned: the plan's ``training.objectives``.

    Raises:
        ColipriError: a letter that no objective has.
    """
    settings: dict[str, dict[str, Any]] = {}
    for letter in letters:
        if letter not in LETTERS:
            raise ColipriError(
                f"no objective has the letter '{letter}'; known: "
                + ", ".join(f"{key} ({name})" for key, name in LETTERS.items())
            )
        name = LETTERS[letter]
        settings[name] = {**DEFAULTS[name], **planned.get(name, {})}
    return settings


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
