"""Before the first step: what the validation cases can measure, and which score is used."""

import json
import shutil

import pytest
import torch
from training.test_family import trainer_of

from colipri.run.train import main
from colipri.text.prompts.same_text import text_key
from colipri.training.run_state import Progress
from colipri.training.validation_plan import LOSS, RETRIEVAL, ZERO_SHOT, plan_validation

DATASET = "Dataset950_Tiny"
STORE = f"{DATASET}/colipriPlans_3d_lowres"
ARGUMENTS = ["950", "3d_lowres", "0", "-device", "cpu", "--epochs", "2"]
ARGUMENTS += ["--iterations_per_epoch", "1", "--set", "training.text_start_iterations=0"]


@pytest.fixture
def folders(tiny_folders, tmp_path, monkeypatch):
    """A copy of the preprocessed data set that a test may change, and no results."""
    shutil.copytree(tiny_folders.preprocessed, tmp_path / "preprocessed")
    (tmp_path / "preprocessed" / DATASET / "splits_final.json").unlink(missing_ok=True)
    monkeypatch.setenv("colipri_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("colipri_results", str(tmp_path / "results"))
    return tmp_path


def change_records(folders, change):
    path = folders / "preprocessed" / STORE / "manifest.json"
    content = json.loads(path.read_text())
    for number, record in enumerate(content["cases"].values()):
        change(number, record)
    path.write_text(json.dumps(content))


def give_validation_cases(folders, numbers):
    """Cases 000 to 011 are the data set; those in ``numbers`` validate, the others train."""
    sides = {False: "train", True: "val"}
    change_records(folders, lambda n, record: record.update(split=sides[n in numbers]))


def train(trainer, *further):
    return main([*ARGUMENTS, "-tr", trainer, *further])


def run_folder(folders, trainer):
    return folders / "results" / DATASET / f"{trainer}__colipriPlans__3d_lowres" / "fold_0"


def test_one_validation_case_trains_to_the_end_and_has_no_best_checkpoint(folders, capsys):
    give_validation_cases(folders, [1])
    assert train("ColipriTrainer_C") == 0
    logged = capsys.readouterr().out
    assert "The only validation case, case_001, has no other to be compared with" in logged
    assert logged.index("The only validation case") < logged.index("epoch 0:")
    folder = run_folder(folders, "ColipriTrainer_C")
    assert (folder / "checkpoint_final.pth").is_file()
    assert not (folder / "checkpoint_best.pth").exists()
    values = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    assert not any(name.startswith("recall") for name in values)
    assert main([*ARGUMENTS[:5], "-tr", "ColipriTrainer_C", "--val"]) == 0


def test_one_validation_case_of_several_objectives_is_judged_by_its_loss(folders, capsys):
    give_validation_cases(folders, [1])
    assert train("ColipriTrainer_CR") == 0
    assert "the best checkpoint is chosen by the validation loss" in capsys.readouterr().out
    best = torch.load(
        run_folder(folders, "ColipriTrainer_CR") / "checkpoint_best.pth", weights_only=True
    )
    assert best["score_name"] == LOSS


def test_recall_among_five_reports_does_not_choose_the_best_checkpoint(folders, capsys):
    give_validation_cases(folders, [1, 4, 5, 8, 9])
    assert train("ColipriTrainer_C", "--batch_size", "4") == 0
    logged = capsys.readouterr().out
    assert "5 different report(s), of which recall@5 finds 100% by chance" in logged
    lines = (run_folder(folders, "ColipriTrainer_C") / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line)["val"] for line in lines]
    assert all("recall_at_5_image_to_text" in value for value in values)  # still measured
    best = torch.load(
        run_folder(folders, "ColipriTrainer_C") / "checkpoint_best.pth", weights_only=True
    )
    assert best["best_score"] == pytest.approx(max(-value["loss"] for value in values))


def test_no_validation_case_with_a_report_is_said(folders, capsys):
    give_validation_cases(folders, [10, 11])
    assert train("ColipriTrainer_C") == 0
    assert "There are no validation cases" in capsys.readouterr().out


def test_a_batch_of_one_case_cannot_be_compared(folders, capsys):
    assert train("ColipriTrainer_CR", "--batch_size", "1") == 1
    error = capsys.readouterr().err
    assert "compares at least 2 cases" in error and "--batch_size" in error
    assert len(error.splitlines()) == 1
    assert not list((folders / "results").rglob("*"))


def test_a_batch_of_one_case_is_enough_for_images_alone(folders):
    assert train("ColipriTrainer_M", "--batch_size", "1") == 0


@pytest.mark.parametrize("labels", ["both", "one value", "none"])
def test_the_score_follows_from_the_labels(folders, tmp_path, labels):
    values = {"both": [0, 1], "one value": [1, 1], "none": [None, None]}[labels]
    change_records(
        folders, lambda n, r: r.update(findings={"Pleural effusion": values[n % 2]}, split="")
    )
    trainer = trainer_of("ColipriTrainer_C", tmp_path / "run", iterations_per_epoch=1)
    trainer.initialize()
    store, cases = trainer.data.store, [f"case_{n:03d}" for n in range(10)]
    names = ["Pleural effusion"]
    plan = plan_validation(store, cases, trainer.objectives, names, "short")
    reports = len({text_key(store.report(case)) for case in cases if store.report(case)})
    expected = ZERO_SHOT if labels == "both" else RETRIEVAL if reports >= 10 else LOSS
    assert plan.score_name == expected


def test_faulty_prompts_are_an_error_before_training(folders, capsys, monkeypatch):
    monkeypatch.setattr("colipri.training.validation_plan.MINIMUM_LABELLED_CASES", 4)
    give_validation_cases(folders, [1, 4, 5, 8])
    assert train("ColipriTrainer_C", "--training", "prompt_style=no_such_style") == 1
    error = capsys.readouterr().err
    assert "no prompt style 'no_such_style'" in error
    assert len(error.splitlines()) == 1
    assert not list((folders / "results").rglob("*"))


def test_a_best_score_of_another_measure_is_replaced():
    progress = Progress(best_score=1.0, score_name=RETRIEVAL)
    assert progress.is_best(-2.0, LOSS)
    assert not progress.is_best(-3.0, LOSS)
    old = Progress(best_score=1.0)  # version 0.2.0: recall@5 among five cases
    assert old.is_best(-2.0, LOSS)
    assert not Progress(best_score=0.9).is_best(0.8, ZERO_SHOT)
    assert not Progress().is_best(None)
