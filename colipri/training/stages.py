"""What a stage of a run changes in the model: heads, trained parameters, learning rate.

All stages train one model: heads of all of them are in it from the first step, and a stage gives
gradients to what its own objectives reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from colipri.architectures.model import ColipriModel, is_head
from colipri.common.errors import ColipriError
from colipri.objectives.base import HeadSizes, Objective
from colipri.objectives.registry import add_heads
from colipri.objectives.stages import RunStage
from colipri.training.optim import freeze_parts, freeze_unreached, learning_rate


def rate_in_stage(stage: RunStage, iteration: int) -> float:
    """Return the rate of a step: linear warm-up, then a half cosine to the stage's end.

    Args:
        stage: of the step.
        iteration: of the step, counted over the run from 0.
    """
    plan = stage.configuration.training
    total = stage.num_epochs * plan.num_iterations_per_epoch
    place = iteration - stage.first_iteration
    return learning_rate(place, plan.learning_rate, plan.warmup_iterations, total)


def add_heads_of_stages(model: ColipriModel, stages: Sequence[RunStage], sizes: HeadSizes) -> None:
    """Add the heads of all stages to a model, each once.

    Args:
        model: changed in place.
        stages: of the run.
        sizes: that the heads depend on.

    Raises:
        ColipriError: two stages want a head of the same objective with different shapes.
    """
    built: dict[str, Objective] = {}
    for stage in stages:
        fresh = {}
        for name, objective in stage.objectives.items():
            if name in built and built[name].head_names == objective.head_names:
                if _shapes(built[name], sizes) != _shapes(objective, sizes):
                    raise ColipriError(
                        f"stage '{stage.name}' builds the head of objective '{name}' with other "
                        "sizes than an earlier stage; one model has one"
                    )
            else:
                fresh[name] = built[name] = objective
        add_heads(model, fresh, sizes)


def _shapes(objective: Objective, sizes: HeadSizes) -> list[Any]:
    with torch.device("meta"):
        heads = objective.heads(sizes)
    return [
        (name, key, value.shape)
        for name, head in heads.items()
        for key, value in head.state_dict().items()
    ]


class Trainable:
    """Which parameters a stage trains.

    Args:
        model: as it was built; parameters that need no gradient now never get one.
    """

    def __init__(self, model: ColipriModel) -> None:
        self.model = model
        self._possible = {name for name, p in model.named_parameters() if p.requires_grad}

    def choose(self, stage: RunStage) -> set[str]:
        """Give gradients to what the stage's objectives reach and it does not freeze; its names.

        Raises:
            ColipriError: nothing is left to train, or the stage names an unknown part.
        """
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._possible)
        freeze_unreached(self.model, stage.objectives)
        own = {name for o in stage.objectives.values() for name in o.head_names}
        for name, parameter in self.model.named_parameters():
            if is_head(name) and name.partition(".")[0] not in own:
                parameter.requires_grad_(False)
        freeze_parts(self.model, stage.configuration.training.frozen)
        left = _trained(self.model)
        if not left:
            where = f"stage '{stage.name}'" if stage.name else "training.frozen"
            raise ColipriError(f"nothing is left to train: {where} freezes every part")
        return left

    def choose_any_of(self, stages: Sequence[RunStage]) -> None:
        """Give gradients to what any of the stages trains, so that one optimizer knows all.

        Raises:
            ColipriError: some stage trains nothing.
        """
        together = set().union(*(self.choose(stage) for stage in stages))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in together)


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
