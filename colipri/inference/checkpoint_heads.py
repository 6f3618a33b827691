"""The heads of objectives, where a checkpoint has kept them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from colipri.inference.trained_objectives import trained_objectives
from colipri.objectives.base import HeadSizes, Objective

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor

Heads = dict[str, nn.Module]


def heads_of_checkpoint(
    predictor: ColipriPredictor, wanted: Callable[[Objective], bool]
) -> tuple[Objective, Heads] | None:
    """Return the first wanted objective of a checkpoint and its heads, ready to use.

    Args:
        predictor: Of the checkpoint.
        wanted: Chooses among the objectives that it was trained with.

    Returns:
        Fresh heads for a model that is untrained (``ColipriPredictor.untrained``).
        None where there is no such objective, or its heads were left out of the checkpoint.
    """
    weights = predictor.checkpoint["network_weights"]
    sizes = HeadSizes.of_model(predictor.model, predictor.configuration, len(predictor.tokenizer))
    for objective in trained_objectives(predictor.checkpoint).values():
        if not wanted(objective):
            continue
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            heads = objective.heads(sizes)
        for name, head in heads.items():
            own = {
                key.removeprefix(f"{name}."): tensor
                for key, tensor in weights.items()
                if key.startswith(f"{name}.")
            }
            if not own:
                return None
            if not predictor.is_untrained:
                head.load_state_dict(own)
            head.to(predictor.device).eval()
        return objective, heads
    return None
