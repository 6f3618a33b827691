"""Stopped in the middle of an epoch and taken up by a new trainer: the same weights, bit for bit.

tests/end_to_end/test_resume.py does the same to processes, with signals and SIGKILL (slow).
"""

import signal

import pytest
import torch
from training.test_family import trainer_of

from colipri.training.trainer import TrainingStopped

OPTIONS = {
    "epochs": 2,
    "iterations_per_epoch": 2,
    "objective_options": {"R.parallel": 0.5, "L.fewest_studies": 1, "M.target": "auto"},
    "mixing": {"image_only_share": 0.4},
}


def run(folder, stop_after=None, letters="CRMOLDA", options=OPTIONS):
    folder.mkdir(exist_ok=True)
    trainer = trainer_of(f"ColipriTrainer_{letters}", folder, **options)
    trainer.initialize()
    if (folder / "checkpoint_latest.pth").is_file():
        trainer.resume(folder / "checkpoint_latest.pth")
    if stop_after is not None:
        original = trainer.train_step

        def interrupted(batch):
            if trainer.global_iteration() + 1 == stop_after:
                signal.raise_signal(signal.SIGTERM)
            return original(batch)

        trainer.train_step = interrupted
    trainer.run_training()
    return trainer


def test_it_is_the_training_that_was_never_stopped(tiny, tmp_path):
    whole = run(tmp_path / "whole")
    for stop_after in (1, 3):
        with pytest.raises(TrainingStopped):
            run(tmp_path / "parts", stop_after)
    parts = run(tmp_path / "parts")
    other = parts.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, other[name]), name
    for first, second in zip(whole.progress.history, parts.progress.history, strict=True):
        assert first["train"] == second["train"]
        assert first["val"] == second["val"]
    samples = [folder / "generated_reports" for folder in (whole.folder, parts.folder)]
    assert [file.name for file in sorted(samples[0].iterdir())] == ["epoch_0001.jsonl"]
    texts = [(folder / "epoch_0001.jsonl").read_text() for folder in samples]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 2  # the fold's validation cases
