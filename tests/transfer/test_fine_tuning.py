"""Learning rates by depth and epoch, and the trainers in nnU-Net's hands."""

from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from transfer.nnunet_data import make_encoder

from colipri.common.errors import ColipriError
from colipri.run.nnunet_trainer_folder import main as print_folder
from colipri.transfer.fine_tuning import (
    FINE_TUNING,
    FineTuningSchedule,
    fine_tuning_settings,
    parameter_groups,
)
from colipri.transfer.segmentation_network import PrimusSegmentation, deep_supervision_strides


def network(**changes):
    encoder = make_encoder(**changes)
    return PrimusSegmentation(
        1,
        2,
        True,
        encoder=encoder.arch_kwargs,
        decoder={"kind": "dense"},
        strides=deep_supervision_strides((8, 8, 8)),
    )


def test_every_parameter_is_in_one_group_at_the_rate_of_its_depth():
    model = network()
    groups = parameter_groups(model, {**FINE_TUNING, "layer_decay": 0.5})
    where = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    expected = {"decoder.seg_layers.heads.0.weight": 1.0, "eva.norm.weight": 1.0}
    expected |= {f"eva.blocks.{n}.attn.q_proj.weight": 0.5 ** (3 - n) for n in range(3)}
    expected["down_projection.proj.weight"] = 0.5**4
    for name, parameter in model.named_parameters():
        if name in expected:
            assert where[id(parameter)]["lr_factor"] == expected[name], name
        assert where[id(parameter)]["is_encoder"] == (not name.startswith("decoder."))
        if parameter.ndim <= 1:
            assert where[id(parameter)]["weight_decay"] == 0.0, name
    assert not groups[0]["is_encoder"]  # the one whose rate nnU-Net logs


def test_the_encoder_waits_warms_up_and_both_decay_to_zero():
    settings = {**FINE_TUNING, "num_epochs": 100, "decoder_only_epochs": 5, "warmup_epochs": 10}
    optimizer = torch.optim.AdamW(parameter_groups(network(), settings), 1.0)
    schedule = FineTuningSchedule(optimizer, settings)
    assert all((g["lr"] == 0.0) == g["is_encoder"] for g in optimizer.param_groups)
    assert schedule.rate(4, True) == 0.0 < schedule.rate(5, True) < schedule.rate(14, True)
    assert schedule.rate(14, True) == schedule.rate(14, False)
    assert schedule.rate(99, False) < 0.02 * settings["initial_lr"]
    schedule.step(50)
    resumed = FineTuningSchedule(torch.optim.AdamW(parameter_groups(network(), settings)), settings)
    resumed.step(50)
    rates = [[g["lr"] for g in s.optimizer.param_groups] for s in (schedule, resumed)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"lr": 1}, "unknown entries lr; known: num_epochs"),
        ({"num_epochs": 0}, "num_epochs must be a whole number from 1 on"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0"),
    ],
)
def test_wrong_entries_of_an_edited_plan_are_named(entry, message):
    with pytest.raises(ColipriError, match=message):
        fine_tuning_settings({"colipri_training": entry})


def test_nnunet_finds_the_trainers_in_the_printed_folder(capsys, monkeypatch):
    assert print_folder([]) == 0
    folder = capsys.readouterr().out.strip()
    assert [file.name for file in Path(folder).glob("*.py")] == ["colipri_trainers.py"]
    monkeypatch.setenv("nnUNet_extTrainer", folder)
    for name in ("nnUNetTrainer_colipri", "nnUNetTrainer_colipri_scratch"):
        found = recursive_find_trainer_class_by_name(name)
        assert found.__module__ == "colipri.transfer.nnunet_trainer"
