"""The heads of objectives, where a checkpoint has kept them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from colipri.objectives.base import HeadSizes, Objective
from colipri.objectives.registry import build_objectives

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor

Heads = dict[str, nn.Module]


def trained_objectives(checkpoint: Mapping[str, Any]) -> dict[str, Objective]:
    """The objectives that a checkpoint was trained with; none where it does not say.

    Raises:
        ColipriError: one of them is not installed here.
    """
    settings = (checkpoint.get("settings") or {}).get("objectives") or {}
    return build_objectives(settings) if settings else {}


def heads_of_checkpoint(
    predictor: ColipriPredictor, wanted: Callable[[Objective], bool]
) -> tuple[Objective, Heads] | None:
    """The first wanted objective of a checkpoint and its heads, ready to use.

    Args:
        predictor: of the checkpoint.
        wanted: chooses among the objectives that it was trained with.

    Returns:
        None where there is no such objective, or its heads were left out of the checkpoint.
    """
    weights = predictor.checkpoint["network_weights"]
    sizes = HeadSizes.of_model(predictor.model, predictor.configuration, len(predictor.tokenizer))
    for objective in trained_objectives(predictor.checkpoint).values():
        if not wanted(objective):
            continue
        heads = objective.heads(sizes)
        for name, head in heads.items():
            own = {
                key.removeprefix(f"{name}."): tensor
                for key, tensor in weights.items()
                if key.startswith(f"{name}.")
            }
            if not own:
                return None
            head.load_state_dict(own)
            head.to(predictor.device).eval()
        return objective, heads
    return None
