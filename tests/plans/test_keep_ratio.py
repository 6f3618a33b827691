"""The share of tokens that a step sees, over a run."""

import json
from dataclasses import replace

import pytest
from tiny_dataset import PLANS

from colipri.common.errors import ColipriError
from colipri.plans.overrides import set_in_configuration
from colipri.plans.plans import Configuration

CONFIGURATION = json.loads(PLANS.read_text())["configurations"]["3d_lowres"]


def training(**changes):
    plan = Configuration.from_dict(CONFIGURATION).training
    return replace(plan, num_epochs=4, num_iterations_per_epoch=5, **changes)


def test_without_a_final_share_it_stays():
    plan = training(keep_ratio=0.5)
    assert {plan.keep_ratio_at(step) for step in range(20)} == {0.5}


def test_the_last_steps_see_the_final_share():
    plan = training(keep_ratio=0.25, keep_ratio_final=1.0, keep_ratio_final_share=0.2)
    assert [plan.keep_ratio_at(step) for step in range(20)] == [0.25] * 16 + [1.0] * 4
    whole = replace(plan, keep_ratio_final_share=1.0)
    assert whole.keep_ratio_at(0) == 1.0


@pytest.mark.parametrize("value", [0, 1.5, -0.1])
def test_a_share_outside_its_range_is_refused(value):
    with pytest.raises(ColipriError, match="keep_ratio_final"):
        set_in_configuration(
            Configuration.from_dict(CONFIGURATION),
            {"training.keep_ratio_final": value},
            lambda key: key,
        )
