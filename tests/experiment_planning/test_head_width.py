"""The number of attention heads: its reason in the plan, and wider heads for new trainings."""

from __future__ import annotations

import pytest
from experiment_planning.golden_plans import GOLDEN, make_plan

from colipri.architectures.primus import PRESETS
from colipri.experiment_planning.head_width import (
    ENTRY,
    computed_width,
    explain_heads,
    filling_heads,
)
from colipri.experiment_planning.planner import ColipriPlanner


@pytest.mark.parametrize(("width", "kernel"), [(24, 32), (66, 96), (72, 96), (96, 96), (264, 264)])
def test_flash_kernels_compute_with_the_next_wider_head(width: int, kernel: int) -> None:
    assert computed_width(width) == kernel


@pytest.mark.parametrize(("size", "heads"), [("S", None), ("B", None), ("M", 9), ("L", 11)])
def test_heads_that_fill_the_kernels(size: str, heads: int | None) -> None:
    sizes = PRESETS[size]
    assert filling_heads(sizes["embed_dim"], sizes["num_heads"]) == heads
    if heads is not None:
        assert filling_heads(sizes["embed_dim"], heads) is None, "these are not padded"


def test_the_plan_keeps_published_heads_and_says_what_others_would_save() -> None:
    configuration = make_plan("ct_rate_80gb").configurations["3d_lowres"]
    assert configuration.encoder.num_heads == 12
    reason = configuration.rationale[ENTRY]
    assert "--set architecture.num_heads=9 gives heads of 96 and 25 % less" in reason
    assert "published weights" in reason


@pytest.mark.parametrize(
    ("heads", "said"), [(9, "without padding"), (16, "compute heads of 54 channels as 64")]
)
def test_heads_set_by_hand_have_a_reason(heads: int, said: str) -> None:
    planner = ColipriPlanner(GOLDEN["ct_rate_80gb"][0](), 80)
    plans = planner.with_overrides(planner.plan(), {"architecture.num_heads": heads})
    for configuration in plans.configurations.values():
        assert configuration.encoder.num_heads == heads
        assert configuration.rationale[ENTRY].startswith("set by hand (--set): ")
        assert said in configuration.rationale[ENTRY]
        assert explain_heads(configuration.encoder, True) in configuration.rationale[ENTRY]
