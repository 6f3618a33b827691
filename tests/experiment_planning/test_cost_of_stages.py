"""What a plan in stages is predicted to cost: memory for all objectives, each stage's own time."""

from __future__ import annotations

from typing import Any

import pytest
from experiment_planning.golden_plans import GOLDEN

from colipri.experiment_planning.planner import ColipriPlanner

CONTRAST = {"name": "contrast", "objectives": {"C": {}}}
MASKED = {"name": "masked", "share": 3, "objectives": {"M": {}}}


def costs(stages: list[dict[str, Any]]) -> Any:
    planner = ColipriPlanner(GOLDEN["ct_rate_80gb"][0](), 80)
    plans = planner.with_overrides(planner.plan(), {"training.stages": stages})
    return plans.configurations["3d_lowres"].compute_estimate


def test_each_stage_counts_by_its_length() -> None:
    contrast, masked = costs([CONTRAST]), costs([MASKED])
    both = costs([CONTRAST, MASKED])
    expected = 0.25 * contrast.tflop_per_step + 0.75 * masked.tflop_per_step
    assert both.tflop_per_step == pytest.approx(expected, rel=0.02)
    assert masked.tflop_per_step < 0.5 * contrast.tflop_per_step  # a quarter of the tokens
    assert both.steps == contrast.steps


def test_a_stage_on_half_of_the_tokens_costs_less_than_half() -> None:
    half = costs([{**CONTRAST, "keep_ratio": 0.5}])
    assert 0.2 < half.tflop_per_step / costs([CONTRAST]).tflop_per_step < 0.55


def test_what_no_stage_trains_takes_no_time() -> None:
    planner = ColipriPlanner(GOLDEN["ct_rate_80gb"][0](), 80)
    whole = planner.plan().configurations["3d_lowres"].compute_estimate
    assert costs([CONTRAST]).tflop_per_step < whole.tflop_per_step
