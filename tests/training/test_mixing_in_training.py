"""Paired and image-only scans in one training: who is drawn, who is refused."""

import json

import pytest
from training.test_family import trainer_of

from colipri.common.errors import ColipriError


def batches(trainer, count):
    trainer.initialize()
    trainer.data.start_training(0)
    return [trainer.data.next_batch() for _ in range(count)]


def reports_in(batch):
    return batch.has_report.tolist()


def test_image_only_scans_join_where_an_objective_can_use_them(tiny, tmp_path):
    for letters, expected in (("CM", {True, False}), ("C", {True}), ("M", {True, False})):
        trainer = trainer_of(f"ColipriTrainer_{letters}", tmp_path)
        seen = {has for batch in batches(trainer, 4) for has in reports_in(batch)}
        assert seen == expected, letters


def test_the_contrastive_batch_stays_as_large_as_planned(tiny, tmp_path):
    trainer = trainer_of("ColipriTrainer_CRM", tmp_path, mixing={"image_only_share": 0.5})
    for batch in batches(trainer, 3):
        assert reports_in(batch) == [True] * 4 + [False] * 4


def test_alternating_steps_have_one_kind_and_train(tiny, tmp_path):
    mixing = {"schedule": "alternating", "image_only_share": 0.5}
    trainer = trainer_of("ColipriTrainer_CRMO", tmp_path, mixing=mixing)
    for batch in batches(trainer, 4):
        assert len(set(reports_in(batch))) == 1
    again = trainer_of("ColipriTrainer_CRMO", tmp_path, mixing=mixing, iterations_per_epoch=4)
    again.run_training()
    assert again.progress.history[0]["train"]["contrastive/loss"] > 0


def test_objectives_and_their_options_can_be_chosen_for_one_run(tiny, tmp_path):
    trainer = trainer_of(
        "ColipriTrainer_C",
        tmp_path,
        objectives="OM",
        objective_options={"M.mask": "block", "O.weight": 2, "M.target": "normalised"},
    )
    trainer.run_training()
    assert list(trainer.objectives) == ["opposite_sentence", "masked_image_modelling"]
    assert trainer.objectives["opposite_sentence"].weight == 2.0
    assert trainer.objectives["masked_image_modelling"].mask == "block"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"objectives": "CX"}, "no objective has the letter 'X'"),
        ({"objective_options": {"R.parallel": 0.5}}, "R.parallel"),
        ({"objective_options": {"C.kindness": 1}}, "kindness"),
        ({"mixing": {"dataset_weights": {"Dataset001_No": 2}}}, "Dataset001_No"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_one_line(options, part, tiny, tmp_path):
    with pytest.raises(ColipriError, match=part) as caught:
        trainer = trainer_of("ColipriTrainer_CO", tmp_path, **options)
        trainer.initialize()
        trainer.data.start_training(0)
    assert "\n" not in str(caught.value)


def without_reports(tiny, monkeypatch):
    """The store as if no case had a report."""
    from colipri.preprocessing.store import CaseStore

    original = CaseStore.record

    def record(self, case):
        return {**original(self, case), "has_report": False}

    monkeypatch.setattr(CaseStore, "record", record)
    monkeypatch.setattr(CaseStore, "report", lambda self, case: None)


@pytest.mark.parametrize("letters", ["C", "CRM", "CO"])
def test_images_alone_are_refused_by_trainers_that_need_reports(
    letters, tiny, tmp_path, monkeypatch
):
    without_reports(tiny, monkeypatch)
    with pytest.raises(ColipriError, match="-tr ColipriTrainer_M"):
        trainer_of(f"ColipriTrainer_{letters}", tmp_path).initialize()


def test_images_alone_train_the_image_encoder_and_are_validated_by_reconstruction(
    tiny, tmp_path, monkeypatch
):
    without_reports(tiny, monkeypatch)
    trainer = trainer_of("ColipriTrainer_M", tmp_path)
    trainer.run_training()
    validated = trainer.progress.history[-1]["val"]
    assert validated["loss"] == pytest.approx(validated["masked_image_modelling/loss"])
    assert trainer.progress.best_score == pytest.approx(-validated["loss"])
    assert (tmp_path / "checkpoint_best.pth").is_file()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["val"]["loss"] > 0
