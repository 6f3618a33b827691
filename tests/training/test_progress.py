"""What people see of a run: what is trained, how an epoch goes on, and the curves."""

import io
import logging
import re
import sys

import pytest
from matplotlib.figure import Figure
from training.test_family import trainer_of

from colipri.run.train import main
from colipri.training.logging import StepLog, plot_progress
from colipri.training.trainer import ColipriTrainer
from colipri.training.variants import family_trainer


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def entry(epoch):
    terms = {"loss": 3.0 - epoch, "contrastive/loss": 2.0, "report_generation/loss": 1.0}
    return {
        "epoch": epoch,
        "learning_rate": 1e-3,
        "train": {**terms, "contrastive/accuracy": 0.5},
        "val": {**terms, "recall_at_5_image_to_text": 0.4},
        "temperature": 0.07,
        "samples_per_second": 1.5,
        "seconds": 60.0,
    }


def test_progress_png_shows_every_objective_temperature_and_throughput(tmp_path, monkeypatch):
    drawn = []
    original = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), original(self, *a, **k))[1]
    )
    plot_progress([entry(0), entry(1)], tmp_path / "progress.png")
    assert (tmp_path / "progress.png").stat().st_size > 10_000
    lines = {line.get_label(): line for axes in drawn[0].axes for line in axes.lines}
    assert lines.keys() >= {
        "contrastive, training",
        "contrastive, validation",
        "report generation, training",
        "report generation, validation",
        "temperature",
        "volumes per second",
        "learning rate",
        "recall@5 image to report",
    }
    assert list(lines["training loss"].get_ydata()) == [3.0, 2.0]
    assert list(lines["report generation, training"].get_ydata()) == [1.0, 1.0]


def test_without_a_terminal_a_line_says_step_loss_and_time_left(caplog, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("colipri.training.logging.time.perf_counter", lambda: clock[0])
    lines = StepLog(epoch=2, steps=100, done=10)
    with caplog.at_level(logging.INFO, "colipri"):
        for number in range(11, 101):
            clock[0] += 4.0
            lines.after_step(number, 3.21)
    logged = [record.getMessage() for record in caplog.records]
    assert logged[0] == (
        "epoch 2, step 18 of 100: loss 3.2100, about 5 min 28 s left in this epoch"
    )
    assert len(logged) == 11  # every 32 s of 360 s
    caplog.clear()
    monkeypatch.setattr(sys, "stderr", Terminal())
    lines.after_step(50, 3.21)
    assert not caplog.records


def test_a_terminal_shows_a_bar_within_the_epoch(tiny, tmp_path, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    trainer_of("ColipriTrainer_M", tmp_path, iterations_per_epoch=3).run_training()
    shown = screen.getvalue()
    assert "epoch 0: 100%" in shown and "3/3" in shown
    assert re.search(r"loss \d\.\d{4}", shown)


@pytest.mark.parametrize(
    ("cls", "options", "expected"),
    [
        (ColipriTrainer, {}, "those of the plan (training.objectives)"),
        (family_trainer("ColipriTrainer_CR"), {}, "chosen by ColipriTrainer_CR"),
        (ColipriTrainer, {"objectives": "M"}, "chosen by --objectives"),
    ],
)
def test_the_log_says_what_is_trained_and_who_chose_it(
    tiny, tmp_path, caplog, monkeypatch, cls, options, expected
):
    class Derived(cls):
        pass

    monkeypatch.setattr("training.test_family.find_trainer", lambda name: Derived)
    trainer = trainer_of("Derived", tmp_path, iterations_per_epoch=1, **options)
    trainer.initialize()
    with caplog.at_level(logging.INFO, "colipri"):
        trainer.log_objectives()
    line = caplog.records[-1].getMessage()
    letters = [objective.letter for objective in trainer.objectives.values()]
    assert line.startswith("Objectives: " + letters[0])
    assert all(f"{letter} (" in line for letter in letters)
    assert expected.replace("ColipriTrainer_CR", "Derived") in line


def test_the_command_prints_the_objectives(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("colipri_results", str(tmp_path))
    arguments = ["950", "3d_lowres", "0", "-device", "cpu", "-tr", "ColipriTrainer_CR"]
    arguments += ["--epochs", "1", "--iterations_per_epoch", "1"]
    assert main([*arguments, "--set", "training.text_start_iterations=0"]) == 0
    printed = capsys.readouterr().out
    assert "Objectives: C (contrastive, weight 1), R (report_generation, weight 1)" in printed
