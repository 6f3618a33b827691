"""The plan as trained: what a run replaced is in it, everything else stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.plans.as_trained import as_trained, plans_as_trained
from colipri.plans.plans import load_plans

EXAMPLE = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"


def test_settings_replace_what_was_planned() -> None:
    planned = load_plans(EXAMPLE).configuration("3d_lowres")
    settings = {
        "batch_size": 3,
        "micro_batch_size": 1,
        "learning_rate": 0.5,
        "mixing": {"schedule": "alternating"},
        "objectives": {"contrastive": {"weight": 2.0}},
        "of_a_trainer_of_ones_own": 1,
    }
    trained = as_trained(planned, settings)
    assert (trained.batch_size, trained.micro_batch_size) == (3, 1)
    assert trained.training.learning_rate == 0.5
    assert trained.training.mixing.schedule == "alternating"
    assert trained.training.objectives == settings["objectives"]
    same = replace(trained, training=planned.training, batch_size=planned.batch_size)
    assert replace(same, micro_batch_size=planned.micro_batch_size) == planned
    assert as_trained(trained, settings) == trained


def test_without_settings_the_plan_stays() -> None:
    plans = load_plans(EXAMPLE)
    assert plans_as_trained(plans, "3d_lowres", {}).to_json() == plans.to_json()


def test_a_setting_that_no_plan_can_have_is_named() -> None:
    planned = load_plans(EXAMPLE).configuration("3d_lowres")
    with pytest.raises(ColipriError, match="learning_rate must be a number above 0"):
        as_trained(planned, {"learning_rate": -1})
