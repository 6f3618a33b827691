"""Plans that people have edited: good edits are used, bad ones get one clear line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Workspace
from experiment_planning.golden_plans import golden_path

from colipri.common.errors import ColipriError
from colipri.plans.plans import Plans, load_plans

OLD_PLAN = Path(__file__).with_name("plan_of_0.2.0.json")
_PLANNING = Path(__file__).parents[1] / "experiment_planning"
PLANS = [OLD_PLAN, _PLANNING / "example_plans.json", *sorted(_PLANNING.glob("golden/*.json"))]
RAW: dict[str, Any] = json.loads(golden_path("lidc_24gb").read_text())


def _edited(change: Callable[[dict[str, Any]], Any], whole: bool = False) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    change(raw if whole else raw["configurations"]["3d_lowres"])
    return raw


def test_an_edited_plan_loads_and_is_used(tmp_path: Path) -> None:
    from colipri.architectures.model import ColipriModel

    def edit(raw: dict[str, Any]) -> None:
        raw["patch_size"] = [32, 24, 40]
        raw["micro_batch_size"] = 2
        raw["architecture"]["arch_kwargs"] |= {"embed_dim": 48, "depth": 1, "num_heads": 2}
        raw["text_encoder"]["arch_kwargs"] |= {"num_hidden_layers": 1}

    path = tmp_path / "my_plans.json"
    path.write_text(json.dumps(_edited(edit)))
    configuration = load_plans(path).configuration("3d_lowres")
    assert configuration.patch_size == [32, 24, 40] and configuration.micro_batch_size == 2
    model = ColipriModel.from_plans(configuration, 100)
    assert model.image_encoder.embed_dim == 48 and len(model.image_encoder.eva.blocks) == 1


@pytest.mark.parametrize("path", PLANS, ids=[path.name for path in PLANS])
def test_what_was_read_is_written_back_byte_for_byte(path: Path) -> None:
    content = json.loads(path.read_text())
    assert json.dumps(Plans.from_dict(content).to_json()) == json.dumps(content)


def test_a_plan_of_version_0_2_0_loads() -> None:
    """It lacks entries that came later (mixing, averages): they have their defaults."""
    old = load_plans(OLD_PLAN)
    configuration = old.configuration("3d_fullres")
    assert old.planner == "ColipriPlanner" and configuration.encoder.stem == "v2"
    assert configuration.training.ema_decay is None
    assert configuration.training.mixing.schedule == "per_step"
    assert configuration.augmentation.noise_std == 0.1
    assert configuration.rationale["spacing"].startswith("the finest at which 8 windows")


def test_a_changed_number_is_written_and_the_rest_stays() -> None:
    plans = Plans.from_dict(RAW)
    configuration = plans.configuration("3d_lowres")
    training = replace(configuration.training, ema_decay=0.99, num_epochs=7)
    changed = plans.with_configurations([replace(configuration, training=training)]).to_json()
    expected = copy.deepcopy(RAW)
    expected["configurations"]["3d_lowres"]["training"] |= {"num_epochs": 7, "ema_decay": 0.99}
    assert json.dumps(changed) == json.dumps(expected)


def test_notes_are_kept() -> None:
    raw = _edited(_set(_note="the radiologists asked for this spacing"))
    assert Plans.from_dict(raw).to_json() == raw


def test_every_entry_says_what_it_means() -> None:
    from colipri.common.settings import Settings, entries

    def all_of(cls: type[Settings]) -> list[type[Settings]]:
        return [cls, *(c for child in cls.__subclasses__() for c in all_of(child))]

    for cls in all_of(Settings):
        for name, about in entries(cls).items():
            assert about.meaning and "\n" not in about.meaning, f"{cls.__name__}.{name}"


def test_a_configuration_may_be_added_by_hand(tmp_path: Path) -> None:
    raw = _edited(lambda _: None)
    added = copy.deepcopy(raw["configurations"]["3d_lowres"]) | {"spacing": [2.5, 2.5, 2.5]}
    raw["configurations"]["3d_mine"] = added
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(raw))
    assert load_plans(path).configuration("3d_mine").spacing == [2.5, 2.5, 2.5]


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.update(values)


def _set_in(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw[part].update(values)


def _set_arch(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["architecture"]["arch_kwargs"].update(values)


BAD: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        _set(patch_size=[128, 150, 152]),
        r"3d_lowres.patch_size \[128, 150, 152\] must be multiples",
    ),
    (_set(patch_size=[128, 152]), "patch_size must be three whole numbers above 0"),
    (
        _set(patch_size=[128.5, 152, 152]),
        r"patch_size must be three whole numbers.*not \[128.5",
    ),
    (_set(spacing=[2, 0, 2]), r"spacing must be three numbers above 0, not \[2, 0, 2"),
    (_set(spacing="2 mm"), "spacing must be three numbers above 0, not '2 mm'"),
    (lambda raw: raw.pop("batch_size"), "3d_lowres lacks 'batch_size'"),
    (_set(batch_size=True), "batch_size must be a whole number at least 1, not True"),
    (_set(micro_batch_size=0), "micro_batch_size must be a whole number at least 1, not 0"),
    (_set(activation_checkpointing="some"), "must be one of none, mlp, full"),
    (_set(activation_checkpointing="mlp"), "write the same in both"),
    (_set(token_patch_size=[4, 8, 8]), "write the same in both"),
    (_set(storage_dtype="float64"), "must be one of int16, float16"),
    (_set(normalization_schemes=[]), r"has 0 values for 1 channel\(s\)"),
    (_set(max_text_tokens=1000), "more than the text encoder's max_position_embeddings"),
    (_set(embed_dim=100, pool_heads=12), "not a multiple of pool_heads"),
    (_set_arch(input_channels=2), "input_channels is 2, channel_names has 1"),
    (_set_arch(num_heads=5), "multiple of 6 x num_heads"),
    (lambda raw: raw["architecture"].pop("arch_kwargs"), "architecture lacks 'arch_kwargs'"),
    (
        _set_in("text_encoder", source="found"),
        "must be one of pretrained, scratch",
    ),
    (_set_in("text_encoder", source="pretrained"), "name_or_path must name"),
    (lambda raw: raw["training"].pop("num_epochs"), "training lacks 'num_epochs'"),
    (
        _set_in("training", learning_rate="fast"),
        "learning_rate must be a number above 0, not",
    ),
    (
        _set_in("training", num_epochs=0),
        "num_epochs must be a whole number at least 1",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_edits_are_named(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(_edited(change)))
    with pytest.raises(ColipriError, match=message) as problem:
        load_plans(path)
    assert "edited.json" in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set(colipri_plans_version=7),
            "plans version 7, this colipri reads version 1; plan again",
        ),
        (lambda raw: raw.pop("colipri_plans_version"), "plans version None"),
        (lambda raw: raw.pop("channel_names"), "lacks 'channel_names'"),
        (_set(configurations={}), "has no configurations"),
        (_set(configurations={"3d_lowres": 5}), "3d_lowres must be an object"),
    ],
)
def test_bad_plans_as_a_whole(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(ColipriError, match=message):
        Plans.from_dict(_edited(change, whole=True), "the plan")


def test_unknown_configuration() -> None:
    with pytest.raises(ColipriError, match="no configuration '2d'; it has 3d_lowres, 3d_fullres"):
        Plans.from_dict(RAW).configuration("2d")
    with pytest.raises(AttributeError, match="'Configuration' object has no attribute 'colour'"):
        _ = Plans.from_dict(RAW).configuration("3d_lowres").colour


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "must be an object, not"),
        ('{"a": 1,\n "b" 2}', r"not valid JSON \(line 2"),
        (None, "no plan"),
    ],
)
def test_files_that_are_no_plans(workspace: Workspace, content: str | None, message: str) -> None:
    folder = workspace.preprocessed / "Dataset101_Chest"
    folder.mkdir()
    if content is not None:
        (folder / "colipriPlans.json").write_text(content)
    with pytest.raises(ColipriError, match=message):
        load_plans("Dataset101_Chest")
