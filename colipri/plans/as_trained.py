"""The plan that a run trained with: the planned configuration and the numbers that replaced it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from colipri.common.settings import entries
from colipri.plans.plans import Configuration, Plans
from colipri.plans.training import TrainingPlan

_SIZES = ("batch_size", "micro_batch_size")


def as_trained(configuration: Configuration, settings: Mapping[str, Any]) -> Configuration:
    """Return a configuration with the numbers and objectives of a run.

    Args:
        configuration: As planned, or as trained: then nothing changes.
        settings: Of a run, as its checkpoints and debug.json hold them; empty for none.

    Raises:
        ColipriError: a setting has a value that no plan can have.
    """
    known = {name: value for name, value in settings.items() if name in entries(TrainingPlan)}
    training = TrainingPlan.from_dict({**configuration.training.to_dict(), **known}, "settings")
    sizes = {name: settings[name] for name in _SIZES if name in settings}
    return replace(configuration, training=training, **sizes)


def plans_as_trained(plans: Plans, name: str, settings: Mapping[str, Any]) -> Plans:
    """Return the plans whose configuration ``name`` is :func:`as_trained`.

    Args:
        plans: Of a run.
        name: Of the trained configuration.
        settings: Of the run.
    """
    return plans.with_configurations([as_trained(plans.configuration(name), settings)])
