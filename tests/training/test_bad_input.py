"""What cannot be trained or continued is refused with one line; nothing that exists is harmed."""

import copy
import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tiny_model import write_checkpoint
from training.test_family import trainer_of

from colipri.checkpoints.checkpoint_file import load_checkpoint, save_checkpoint
from colipri.common.errors import ColipriError
from colipri.plans.plans import Plans
from colipri.run.train import main
from colipri.training.run_folder import prepare_run_folder
from colipri.training.trainer import TrainingStopped


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_loss_that_is_not_finite_names_the_cases_and_leaves_the_weights(tiny, tmp_path):
    trainer = trainer_of("ColipriTrainer_CRMO", tmp_path)
    trainer.initialize()
    trainer.data.start_training(0)
    batch = trainer.data.next_batch()
    with torch.no_grad():
        trainer.model.image_projector.bias[0] = float("nan")
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(ColipriError, match="the loss is nan in epoch 0, step 0") as caught:
        trainer.train_step(batch)
    text = one_line(caught)
    assert all(case in text for case in batch.case)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), before[name].nan_to_num(7.0)), name


def test_gradients_that_are_not_finite_stop_before_the_update(tiny, tmp_path):
    trainer = trainer_of("ColipriTrainer_M", tmp_path)
    trainer.initialize()
    trainer.data.start_training(0)
    trainer.model.masked_decoder.head.bias.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(ColipriError, match=r"the gradient norm is (nan|inf)"):
        trainer.train_step(trainer.data.next_batch())
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_signal_saves_after_the_present_step(tiny, tmp_path):
    """The signal arrives in the middle of a step; the step ends, is saved, and nothing after it."""
    trainer = trainer_of("ColipriTrainer_CRM", tmp_path, iterations_per_epoch=3)
    trainer.initialize()
    original, steps = trainer.train_step, []

    def interrupted(batch):
        if len(steps) == 1:
            signal.raise_signal(signal.SIGUSR1)
        steps.append(batch)
        return original(batch)

    trainer.train_step = interrupted
    with pytest.raises(TrainingStopped, match="SIGUSR1"):
        trainer.run_training()
    assert len(steps) == 2
    content = load_checkpoint(tmp_path / "checkpoint_latest.pth")
    assert (content["epoch"], content["iteration_in_epoch"]) == (0, 2)


def test_a_checkpoint_of_another_plan_or_run_is_refused(tiny, tmp_path):
    def trainer(**options):
        return trainer_of("ColipriTrainer_CM", tmp_path, iterations_per_epoch=1, **options)

    first = trainer()
    first.run_training()
    saved = tmp_path / "checkpoint_final.pth"
    raw = copy.deepcopy(first.plans.raw)
    raw["configurations"]["3d_lowres"]["training"]["weight_decay"] = 0.9
    changed = type(first)(
        Plans.from_dict(raw), "3d_lowres", 0, tmp_path, torch.device("cpu"), first.options
    )
    with pytest.raises(ColipriError, match="another plan for 3d_lowres"):
        changed.resume(saved)
    with pytest.raises(ColipriError, match="another plan for 3d_lowres"):
        trainer(overrides={"architecture.drop_path_rate": 0.3}).resume(saved)
    trainer(overrides={"activation_checkpointing": "full"}).resume(saved)  # changes no number
    others = {
        "learning_rate": {"learning_rate": 0.5},
        "batch_size": {"batch_size": 3},
        "objectives": {"objective_options": {"M.weight": 3}},
        "mixing": {"mixing": {"schedule": "alternating"}},
    }
    for name, options in others.items():
        with pytest.raises(ColipriError, match=f"was trained with {name}") as caught:
            trainer(**options).resume(saved)
        assert "--restart" in one_line(caught)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"orientation": "RAS"}, "axes RAS"),
        ({"colipri_checkpoint_version": 99}, "version 99"),
        ({"tokenizer": None}, None),
    ],
)
def test_checkpoints_of_another_orientation_or_version_are_refused(tmp_path, changes, part):
    path = write_checkpoint(tmp_path / "c.pth")
    content = torch.load(path, weights_only=True) | changes
    if part is None:
        del content["tokenizer"]
        part = "incomplete: no tokenizer"
    torch.save(content, path)
    with pytest.raises(ColipriError, match=part) as caught:
        load_checkpoint(path)
    one_line(caught)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a file"])
def test_damaged_checkpoints_are_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ColipriError, match=r"broken\.pth cannot be read as a checkpoint") as caught:
        load_checkpoint(path)
    one_line(caught)


def test_a_full_disk_while_saving_leaves_the_old_checkpoint_whole(tmp_path):
    path = write_checkpoint(tmp_path / "c.pth")
    content = load_checkpoint(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))  # the checkpoint is larger
    try:
        with pytest.raises(ColipriError, match="cannot write") as caught:
            save_checkpoint(path, {**content, "epoch": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "c.pth" in one_line(caught)
    assert load_checkpoint(path)["epoch"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_results_that_cannot_be_written_are_named(tmp_path):
    blocked = tmp_path / "results"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(ColipriError, match="cannot create"):
        prepare_run_folder(blocked / "fold_0", restart=False)


def test_the_command_refuses_a_folder_that_cannot_be_made(tiny, tmp_path, monkeypatch, capsys):
    kernel = Path("/proc/sys")  # no one can create folders there, root neither
    if not kernel.is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setenv("colipri_results", str(kernel))
    assert main(["950", "3d_lowres", "0", "-tr", "ColipriTrainer_M", "-device", "cpu"]) == 1
    assert "cannot create /proc/sys/Dataset950_Tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["950", "3d_fullres", "0"], "no configuration '3d_fullres'"),
        (["950", "3d_lowres", "7"], "there is no fold 7"),
        (["950", "3d_lowres", "zero"], "fold 'zero'"),
        (["950", "3d_lowres", "0", "-tr", "ColipriTrainer_X"], "ColipriTrainer_CRMO"),
        (["950", "3d_lowres", "0", "-p", "otherPlans"], "colipri_plan_experiment"),
        (["951", "3d_lowres", "0"], "951"),
        (["950", "3d_lowres", "0", "--set", "M.mask_ratio"], "PATH=VALUE"),
        (["950", "3d_lowres", "0", "--set", "M.mask_ratio=2"], "mask_ratio"),
        (["950", "3d_lowres", "0", "--objectives", "C", "Z"], "letter 'Z'"),
        (
            ["950", "3d_lowres", "0", "--epochs", "0"],
            "num_epochs must be a whole number at least 1",
        ),
        (["950", "3d_lowres", "0", "--set", "spacing=[1,1,1]"], "preprocessed cases were made"),
        (["950", "3d_lowres", "0", "--set", "training.ema_decai=1"], "did you mean 'ema_decay'"),
        (["950", "3d_lowres", "0", "--set", "captions.drop_sentence=2"], "a number from 0 to 1"),
        (["950", "3d_lowres", "0", "--training", 'frozen=["image_tower"]'], "training.frozen"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_no_trace(
    tiny, arguments, part, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("colipri_results", str(tmp_path))
    assert main([*arguments, "-device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_was_not_preprocessed_says_what_to_run(
    tiny, tmp_path, monkeypatch, capsys
):
    preprocessed = tmp_path / "preprocessed"
    target = preprocessed / "Dataset950_Tiny"
    target.mkdir(parents=True)
    shutil.copy(tiny.preprocessed / "Dataset950_Tiny" / "colipriPlans.json", target)
    monkeypatch.setenv("colipri_preprocessed", str(preprocessed))
    monkeypatch.setenv("colipri_results", str(tmp_path / "results"))
    assert main(["950", "3d_lowres", "0", "-device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "colipri_preprocess" in error
    assert len(error.splitlines()) == 1
    assert not list((tmp_path / "results").rglob("*"))


def test_too_few_cases_for_the_folds_says_what_to_do(tiny, tmp_path, monkeypatch, capsys):
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(tiny.preprocessed, preprocessed)
    folder = preprocessed / "Dataset950_Tiny"
    (folder / "splits_final.json").unlink(missing_ok=True)
    manifest = folder / "colipriPlans_3d_lowres" / "manifest.json"
    content = json.loads(manifest.read_text())
    for number, record in enumerate(content["cases"].values()):
        record["split"] = "" if number < 4 else "test"
    manifest.write_text(json.dumps(content))
    monkeypatch.setenv("colipri_preprocessed", str(preprocessed))
    monkeypatch.setenv("colipri_results", str(tmp_path / "results"))
    assert main(["950", "3d_lowres", "0", "-device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "4 subjects are too few for 5 folds; train with fold all" in error
    assert len(error.splitlines()) == 1
    assert not (folder / "splits_final.json").exists()
