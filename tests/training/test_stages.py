"""A run in stages: what each trains, where it ends, and that it continues as if never stopped."""

import logging
import signal

import pytest
import torch
from training.test_family import trainer_of

from colipri.common.errors import ColipriError
from colipri.plans.stages import Stage, epochs_of_stages
from colipri.training.trainer import TrainingStopped

FINDINGS = {
    "name": "findings",
    "share": 1,
    "objectives": {"L": {"form": "head", "fewest_studies": 1}},
}
ALIGNMENT = {
    "name": "alignment",
    "share": 2,
    "objectives": {"C": {"weight": 0.5}, "M": {}},
    "frozen": ["text_encoder"],
    "learning_rate": 1e-4,
    "keep_ratio": 0.5,
}
STAGES = [FINDINGS, ALIGNMENT]


def staged(folder, stages=STAGES, **options):
    folder.mkdir(exist_ok=True)
    options = {"epochs": 3, **options}
    trainer = trainer_of("ColipriTrainer", folder, overrides={"training.stages": stages}, **options)
    trainer.initialize()
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def changed(before, after):
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_shares_become_epochs_that_add_up():
    stages = [Stage(name=name, share=share) for name, share in (("a", 1), ("b", 1), ("c", 1))]
    assert epochs_of_stages(stages, 10) == [3, 4, 3]
    assert epochs_of_stages([Stage(name="a", share=3), Stage(name="b")], 8) == [6, 2]


def test_every_stage_trains_what_it_names_and_nothing_else(tiny, tmp_path):
    trainer = staged(tmp_path / "run")
    assert [stage.name for stage in trainer.stages] == ["findings", "alignment"]
    assert [list(stage.objectives) for stage in trainer.stages] == [
        ["finding_supervision"],
        ["contrastive", "masked_image_modelling"],
    ]
    seen, original = [], trainer.run_epoch

    def watched(stop):
        before, rates = weights(trainer), []
        step = trainer.train_step

        def noted(batch):
            values = step(batch)
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            return values

        trainer.train_step = noted
        original(stop)
        trainer.train_step = step
        seen.append((changed(before, weights(trainer)), max(rates), trainer.encoder.keep_ratio))

    trainer.run_epoch = watched
    trainer.run_training()
    findings, *alignment = seen
    assert findings[0] == {"image_encoder", "finding_head"}
    assert findings[2] == 1.0
    for parts, rate, keep_ratio in alignment:
        assert {"image_encoder", "image_pooler", "image_projector"} < parts
        assert "masked_decoder" in parts and "finding_head" not in parts
        assert rate <= 1e-4 and keep_ratio == 0.5
    assert "text_encoder" not in alignment[1][0]  # in the first of them it started on reports
    names = [set(epoch["train"]) for epoch in trainer.progress.history]
    assert "finding_supervision/loss" in names[0] and "contrastive/loss" not in names[0]
    assert "contrastive/loss" in names[2] and "finding_supervision/loss" not in names[2]


@pytest.mark.parametrize(
    "stop_after",  # in the last step of the first stage, and on either side of the boundary
    [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)],
)
def test_it_is_the_training_that_was_never_stopped(stop_after, tiny, tmp_path):
    whole = staged(tmp_path / "whole")
    whole.run_training()
    parts = staged(tmp_path / "parts")
    original = parts.train_step

    def interrupted(batch):
        if parts.global_iteration() + 1 == stop_after:
            signal.raise_signal(signal.SIGTERM)
        return original(batch)

    parts.train_step = interrupted
    with pytest.raises(TrainingStopped):
        parts.run_training()
    again = staged(tmp_path / "parts")
    again.resume(tmp_path / "parts" / "checkpoint_latest.pth")
    again.run_training()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    for first, second in zip(whole.progress.history, again.progress.history, strict=True):
        assert first["train"] == second["train"] and first["val"] == second["val"]


def test_one_stage_is_the_run_without_stages(tiny, tmp_path):
    numbers = {"epochs": 2, "objectives": "CM"}
    plain = trainer_of("ColipriTrainer", tmp_path, **numbers)
    plain.initialize()
    warmup = plain.training_plan.warmup_iterations
    stage = {"name": "all", "objectives": {"C": {}, "M": {}}, "warmup_iterations": warmup}
    one = staged(tmp_path / "one", [stage], epochs=2)
    plain.run_training()
    one.run_training()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, one.model.state_dict()[name]), name


def test_a_trainer_with_letters_trains_them_in_one_stage(tiny, tmp_path):
    stages = {"training.stages": STAGES}
    trainer = trainer_of("ColipriTrainer_C", tmp_path, overrides=stages, epochs=2)
    trainer.initialize()
    assert len(trainer.stages) == 1 and list(trainer.objectives) == ["contrastive"]


def test_the_log_says_what_every_stage_trains(tiny, tmp_path, caplog):
    trainer = staged(tmp_path / "run")
    with caplog.at_level(logging.INFO):
        trainer.on_train_start()
    lines = [line for line in caplog.messages if line.startswith("Stage")]
    assert lines[0].startswith("Stage 'findings', epochs 0 to 0: L x 1") and "(now)" in lines[0]
    assert "C x 0.5, M x 1, learning rate 0.0001, frozen: text_encoder, 50 %" in lines[1]


@pytest.mark.parametrize(
    ("stages", "options", "words"),
    [
        ([*STAGES, {"name": "late", "share": 0.01}], {}, "leave no epoch for 'late'"),
        ([{"name": "a", "objectives": {"X": {}}}], {}, "stage 'a': no objective has the letter"),
        ([{"name": "a", "objectives": {"C": {"wait": 1}}}], {}, "has no option 'wait'"),
        ([{"name": "a", "objectives": {"C": {}, "contrastive": {}}}], {}, "listed twice"),
        ([{"name": "a", "shares": 1}], {}, "did you mean 'share'"),
        ([{"name": "a", "configuration": "3d_other"}], {}, "3d_other"),
        (
            [{"name": "a", "objectives": {"M": {}}, "frozen": ["image_encoder", "masked_decoder"]}],
            {},
            "stage 'a' freezes every part",
        ),
        (
            [
                {"name": "a", "objectives": {"M": {}}},
                {"name": "b", "objectives": {"M": {"decoder_depth": 1}}},
            ],
            {},
            "stage 'b' builds the head of objective",
        ),
    ],
)
def test_wrong_stages_are_one_line_before_training(stages, options, words, tiny, tmp_path):
    with pytest.raises(ColipriError, match=words) as error:
        staged(tmp_path / "run", stages, **options)
    assert "\n" not in str(error.value)


def test_a_run_does_not_continue_with_moved_stages(tiny, tmp_path):
    staged(tmp_path / "run").run_training()
    longer = staged(tmp_path / "run", epochs=6)
    with pytest.raises(ColipriError, match="would move the stages"):
        longer.resume(tmp_path / "run" / "checkpoint_final.pth")
