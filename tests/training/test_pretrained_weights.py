"""Warm starts, frozen towers and torch.compile inside a whole training, by the command."""

import json

import torch
from tiny_dataset import PLANS
from tiny_model import write_checkpoint

from colipri.run.train import main

TRAIN = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_C", "-device", "cpu", "-num_workers", "0"]
SHORT = ["--epochs", "1", "--iterations_per_epoch", "2"]


def final_of(tiny):
    run = "Dataset950_Tiny/ColipriTrainer_C__colipriPlans__3d_lowres/fold_0"
    return torch.load(tiny.results / run / "checkpoint_final.pth", weights_only=True)


def test_a_frozen_pretrained_tower_leaves_training_as_it_came(tiny, tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source.pth")
    stored = torch.load(source, weights_only=True)["network_weights"]
    frozen = '--training=frozen=["image_encoder","text_encoder"]'
    # several micro batches: cached gradients must not ask a frozen tower for any
    more = ["-pretrained_weights", str(source), frozen, "--micro_batch_size", "1", "--restart"]
    assert main([*TRAIN, *SHORT, *more]) == 0
    said = capsys.readouterr().out
    assert "loaded: image encoder, image projector, image pooler" in said
    assert "not loaded: text encoder (its vocabulary is another one" in said
    final = final_of(tiny)
    for name, tensor in final["network_weights"].items():
        if name.startswith("image_encoder."):
            assert torch.equal(tensor, stored[name]), name
    projector = "image_projector.weight"
    assert not torch.equal(final["network_weights"][projector], stored[projector])
    assert final["init_args"]["options"]["pretrained_weights"] == str(source)


def test_a_file_that_does_not_fit_leaves_no_run_behind(tiny, tmp_path, capsys):
    torch.save({"resnet.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    before = sorted(tiny.results.rglob("*"))
    arguments = [*TRAIN, *SHORT, "-pretrained_weights", str(tmp_path / "resnet.pth")]
    assert main([*arguments, "--seed", "2", "--restart"]) == 1
    assert "holds no image encoder that is known here" in capsys.readouterr().err
    assert sorted(tiny.results.rglob("*")) == before


def test_unknown_training_entries_are_named(tiny, capsys):
    assert main([*TRAIN, *SHORT, "--training", "ema_deca=1", "--restart"]) == 1
    assert "has no entry 'ema_deca'; did you mean 'ema_decay'?" in capsys.readouterr().err


def test_a_plan_of_another_network_is_not_trained(tiny, tmp_path, monkeypatch, capsys):
    plans = json.loads(PLANS.read_text())
    architecture = plans["configurations"]["3d_lowres"]["architecture"]
    architecture["network_class_name"] = "colipri.architectures.voxelfm.VoxelFMEncoder"
    target = tmp_path / "Dataset950_Tiny" / "colipriPlans.json"
    target.parent.mkdir()
    target.write_text(json.dumps(plans))
    monkeypatch.setenv("colipri_preprocessed", str(tmp_path))
    assert main([*TRAIN, *SHORT, "--restart"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "names the class colipri.architectures.voxelfm.VoxelFMEncoder" in line
