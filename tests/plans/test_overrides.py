"""--set: one way to every number of a plan, and one line for whatever is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from colipri.common.errors import ColipriError
from colipri.experiment_planning.planner import objective_name
from colipri.plans.overrides import parse_assignments, refuse_stored, set_in_plans
from colipri.plans.plans import Plans, load_plans

EXAMPLE = Path(__file__).parents[1] / "experiment_planning" / "example_plans.json"


@pytest.fixture
def plans() -> Plans:
    return load_plans(EXAMPLE)


def changed(plans: Plans, *texts: str) -> Plans:
    return set_in_plans(plans, parse_assignments(texts), objective_name)


def test_every_kind_of_number_is_reached(plans: Plans) -> None:
    found = changed(
        plans,
        "training.ema_decay=0.999",
        "objectives.M.mask_ratio=0.6",
        "mixing.schedule=alternating",
        "augmentation.noise_std=0.05",
        "architecture.drop_path_rate=0.1",
        "batch_size=8",
        "3d_lowres.spacing=[2, 2, 2.5]",
        'training.frozen=["text_encoder"]',
    ).configuration("3d_lowres")
    assert found.training.ema_decay == 0.999
    assert found.training.objectives["masked_image_modelling"]["mask_ratio"] == 0.6
    assert found.training.mixing.schedule == "alternating"
    assert found.augmentation.noise_std == 0.05
    assert found.encoder.drop_path_rate == 0.1
    assert (found.batch_size, found.spacing) == (8, [2, 2, 2.5])
    assert found.training.frozen == ["text_encoder"]
    assert found.rationale["training.ema_decay"] == "set by hand (--set)"
    assert plans.configuration("3d_lowres").training.ema_decay is None


def test_checkpointing_changes_in_both_of_its_places(plans: Plans) -> None:
    found = changed(plans, "activation_checkpointing=full").configuration("3d_lowres")
    assert found.encoder.activation_checkpointing == "full"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("batchsize=8", "batchsize: the plan has no entry 'batchsize'; did you mean 'batch_size'?"),
        ("orientatio=SAR", "the plan has no entry 'orientatio'; did you mean 'orientation'?"),
        ("training.lerning_rate=1", "1: training has no entry 'lerning_rate'; did you mean 'learn"),
        ("ema_decay=0.9", "did you mean 'training.ema_decay'"),
        ("augmentation.noise_st=1", "did you mean 'noise_std'"),
        ("architecture.drop_path=1", "did you mean 'drop_path_rate'"),
        ("batch_size=eight", "batch_size must be a whole number at least 1, not 'eight'"),
        ("batch_size=0", "batch_size must be a whole number at least 1, not 0"),
        ("training.ema_decay=1.5", "ema_decay must be a number above 0 and below 1 or null"),
        ("spacing=[1, 2]", "spacing must be three numbers above 0"),
        ("mixing.schedule=sometimes", "one of per_step, alternating"),
        ("objectives.X.weight=1", "no objective has the letter 'X'"),
        ("because.spacing=no", "no entry 'because'"),
        (
            "architecture.stem_kwargs.base_features=16",
            "stem_kwargs.base_features is no option of the stem 'light'",
        ),
        (
            "architecture.stem_kwargs.depth_per_level=[1]",
            "has 1 numbers: the stem 'light' needs 3 for tokens of 8x8x8 voxels",
        ),
        ("token_patch_size=[4, 4, 4]", "has 3 numbers: the stem 'light' needs 2 for tokens of"),
        ("token_patch_size=[6, 8, 8]", "is 6x8x8: powers of two are needed"),
        ("batch_size", "write PATH=VALUE"),
        ("orientation=3", "orientation must be a text"),
    ],
)
def test_what_is_wrong_is_one_line(plans: Plans, text: str, part: str) -> None:
    with pytest.raises(ColipriError) as caught:
        changed(plans, text)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_stems_without_numbers_for_a_size_of_token_need_them(plans: Plans) -> None:
    small = ["token_patch_size=[4, 4, 4]", "architecture.stem_kwargs={}"]
    with pytest.raises(ColipriError, match=r"stem_kwargs\.features is not set: the stem 'light'"):
        changed(plans, *small)
    assert changed(plans, *small, "architecture.stem=resnet").configuration("3d_lowres")


def test_training_does_not_change_what_is_stored() -> None:
    refuse_stored(["training.ema_decay", "patch_size"], objective_name)
    with pytest.raises(ColipriError, match=r"spacing: .*-overwrite_plans_name"):
        refuse_stored(["spacing"], objective_name)


def test_numbers_that_depend_on_each_other_are_set_together(plans: Plans) -> None:
    found = changed(
        plans, "architecture.num_heads=4", "architecture.embed_dim=48", "token_patch_size=[4, 8, 8]"
    ).configuration("3d_lowres")
    assert (found.encoder.num_heads, found.encoder.embed_dim) == (4, 48)
    assert found.encoder.patch_embed_size == found.token_patch_size == [4, 8, 8]
    with pytest.raises(ColipriError, match="must be a multiple of 6 x num_heads"):
        changed(plans, "architecture.num_heads=4")


def test_configurations_that_no_longer_agree_get_cases_of_their_own(plans: Plans) -> None:
    lowres = plans.configuration("3d_lowres")
    both = plans.with_configurations([lowres, replace(lowres, name="3d_fullres")])
    assert len({one.data_identifier for one in both.configurations.values()}) == 1
    same = changed(both, "spacing=[2, 2, 2]").configurations.values()
    assert len({one.data_identifier for one in same}) == 1
    found = changed(both, "3d_fullres.spacing=[2, 2, 2]")
    assert found.configuration("3d_lowres").data_identifier == "colipriPlans_3d_lowres"
    assert found.configuration("3d_fullres").data_identifier == "colipriPlans_3d_fullres"


def test_objectives_of_any_module_are_named(plans: Plans) -> None:
    found = set_in_plans(plans, {"objectives.my.module:Mine.scale": 5}, lambda key: key)
    options = found.configuration("3d_lowres").training.objectives["my.module:Mine"]
    assert options == {"scale": 5}


def test_a_reason_is_replaced_where_there_is_one(plans: Plans) -> None:
    lowres = plans.configuration("3d_lowres")
    planned = replace(lowres, rationale={"num_epochs": "100 passes"})
    found = changed(plans.with_configurations([planned]), "training.num_epochs=5")
    assert found.configuration("3d_lowres").rationale == {"num_epochs": "set by hand (--set)"}
