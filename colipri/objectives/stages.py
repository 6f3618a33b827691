"""The stages of a run, resolved: each with its objectives and its configuration.

A run without stages is one stage. Boundaries lie between epochs, so the number of the epoch says
which stage it is, and a run that continues needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from colipri.common.errors import ColipriError
from colipri.objectives.base import Objective
from colipri.objectives.registry import build_objectives, complete_settings, find_objective
from colipri.plans.plans import Configuration, Plans
from colipri.plans.stages import Stage, epochs_of_stages

_WARMUP = 0.05  # of a stage's steps
ObjectiveSettings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RunStage:
    """One stage of a run.

    Attributes:
        name: for people; "" in a run without stages.
        first_epoch: of the stage, counted from 0.
        num_epochs: of the stage.
        configuration: geometry and training numbers of the stage, without stages.
        objectives: name -> objective.
    """

    name: str
    first_epoch: int
    num_epochs: int
    configuration: Configuration
    objectives: dict[str, Objective]

    def __contains__(self, epoch: int) -> bool:
        return self.first_epoch <= epoch < self.first_epoch + self.num_epochs

    @property
    def compares(self) -> bool:
        """True if an objective compares the cases of a batch."""
        return any(objective.compares for objective in self.objectives.values())

    @property
    def first_iteration(self) -> int:
        """Number of the stage's first step, counted over the run."""
        return self.first_epoch * self.configuration.training.num_iterations_per_epoch

    def describe(self) -> str:
        """One line for the log."""
        training = self.configuration.training
        last = self.first_epoch + self.num_epochs - 1
        chosen = ", ".join(f"{o.letter} x {o.weight:g}" for o in self.objectives.values())
        frozen = f", frozen: {', '.join(training.frozen)}" if training.frozen else ""
        keep = f", {100 * training.keep_ratio:g} % of the tokens" if training.keep_ratio < 1 else ""
        return (
            f"Stage '{self.name}', epochs {self.first_epoch} to {last}: {chosen}, learning rate "
            f"{training.learning_rate:g}{frozen}{keep}, images of {self.configuration.name}"
        )


def run_stages(
    configuration: Configuration, plans: Plans | None, settings: ObjectiveSettings, staged: bool
) -> list[RunStage]:
    """Return the stages of a run, in their order; one for a run without stages.

    Args:
        configuration: of the run, with the options of the command line.
        plans: whose other configurations a stage may name; None takes the run's for all of them.
        settings: name -> options of the objectives that the run would train without stages.
        staged: False trains ``settings`` in one stage, whatever the plan says.

    Raises:
        ColipriError: a stage names an unknown objective, option or configuration, or images of a
            configuration whose encoder is another one.
    """
    training = configuration.training
    if not (training.stages and staged):
        whole = replace(
            configuration, training=replace(training, objectives=_plain(settings), stages=[])
        )
        return [RunStage("", 0, training.num_epochs, whole, build_objectives(settings))]
    found: list[RunStage] = []
    first = 0
    for stage, epochs in zip(
        training.stages, epochs_of_stages(training.stages, training.num_epochs), strict=True
    ):
        try:
            options = _objectives_of(stage, training.objectives, settings)
            geometry = _geometry_of(stage, configuration, plans)
            built = build_objectives(options)
        except ColipriError as error:
            raise ColipriError(f"stage '{stage.name}': {error}") from error
        steps = epochs * training.num_iterations_per_epoch
        warmup = stage.warmup_iterations
        numbers = replace(
            training,
            objectives=options,
            stages=[],
            frozen=training.frozen if stage.frozen is None else stage.frozen,
            learning_rate=stage.learning_rate or training.learning_rate,
            warmup_iterations=max(1, round(_WARMUP * steps)) if warmup is None else warmup,
            keep_ratio=stage.keep_ratio or training.keep_ratio,
        )
        found.append(
            RunStage(stage.name, first, epochs, replace(geometry, training=numbers), built)
        )
        first += epochs
    return found


def _plain(settings: ObjectiveSettings) -> dict[str, dict[str, Any]]:
    return {name: dict(options) for name, options in settings.items()}


def _objectives_of(
    stage: Stage, planned: ObjectiveSettings, settings: ObjectiveSettings
) -> dict[str, dict[str, Any]]:
    if not stage.objectives:
        return _plain(settings)
    chosen: dict[str, dict[str, Any]] = {}
    for key, options in stage.objectives.items():
        name = key if ":" in key else find_objective(key).name
        if name in chosen:
            raise ColipriError(f"the objective '{name}' is listed twice")
        chosen[name] = {**planned.get(name, {}), **settings.get(name, {}), **options}
    return complete_settings(chosen)


def _geometry_of(stage: Stage, configuration: Configuration, plans: Plans | None) -> Configuration:
    """The configuration whose images a stage sees, with the run's networks and batch."""
    if plans is None or stage.configuration in (None, configuration.name):
        return configuration
    other = plans.configuration(str(stage.configuration))
    for entry in ("architecture", "token_patch_size", "text_encoder", "embed_dim"):
        ours, theirs = getattr(configuration, entry), getattr(other, entry)
        if entry == "architecture":
            ours = configuration.with_checkpointing("none").architecture
            theirs = other.with_checkpointing("none").architecture
        if ours != theirs:
            raise ColipriError(
                f"its images are those of {other.name}, whose {entry} differs from that of "
                f"{configuration.name}; one model cannot be trained on both"
            )
    return replace(
        other.with_checkpointing(configuration.activation_checkpointing),
        batch_size=configuration.batch_size,
        micro_batch_size=min(other.micro_batch_size, configuration.micro_batch_size),
    )
