"""Which cases an epoch's validation reads, in which processes, and how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataloading.hand_made_store import write_store
from experiment_planning.fingerprints import make_fingerprint
from training.test_family import trainer_of

from colipri.experiment_planning.planner import ColipriPlanner
from colipri.experiment_planning.validation_interval import plan_validation_interval
from colipri.preprocessing.store import CaseStore
from colipri.training.run_state import Progress
from colipri.training.validation_cases import (
    choice_digest,
    choose_validation_cases,
    describe_choice,
)
from colipri.training.validation_plan import ZERO_SHOT


def store_of(folder: Path, studies: int) -> CaseStore:
    """Every study has three reconstructions."""
    cases = {
        f"c{study:04d}_{kernel}": {"study": f"s{study:04d}"}
        for study in range(studies)
        for kernel in range(3)
    }
    return write_store(folder / "Dataset001_Test" / "c", cases)


def fingerprint_of(studies: int) -> dict[str, Any]:
    return make_fingerprint([[2.0, 0.8, 0.8]], [[300.0, 280.0, 350.0]], num_studies=studies)


def test_one_reconstruction_of_each_study_and_at_most_as_many_as_allowed(tmp_path: Path) -> None:
    store = store_of(tmp_path, 30)
    cases = store.identifiers()
    chosen = choose_validation_cases(store, cases)
    assert len({store.record(case)["study"] for case in chosen}) == len(chosen) == 30
    assert {case[-1] for case in chosen} == {"0", "1", "2"}  # no kernel is preferred
    few = choose_validation_cases(store, cases, 12)
    assert len(few) == 12 and set(few) < set(chosen)
    assert few == choose_validation_cases(store, list(reversed(cases)), 12)
    text = describe_choice(store, cases, few)
    assert "12 of 90 validation cases: one reconstruction of 12 of 30 studies" in text
    assert describe_choice(store, chosen, chosen) == ""


def test_a_study_that_is_added_moves_at_most_one_out(tmp_path: Path) -> None:
    fewer = store_of(tmp_path / "fewer", 30)
    more = store_of(tmp_path / "more", 31)
    before = choose_validation_cases(fewer, fewer.identifiers(), 12)
    after = choose_validation_cases(more, more.identifiers(), 12)
    assert len(set(before) - set(after)) <= 1


def test_a_score_of_other_cases_is_no_measure() -> None:
    digest = choice_digest(["a", "b"], ["a"])
    assert digest and choice_digest(["a"], ["a"]) is None
    progress = Progress(best_score=0.9, score_name=ZERO_SHOT)
    assert not progress.is_best(0.8, ZERO_SHOT)
    assert progress.is_best(0.8, ZERO_SHOT, digest)
    assert Progress.from_dict(progress.to_dict()).score_cases == digest
    assert not progress.is_best(0.7, ZERO_SHOT, digest)


def test_validation_uses_the_workers_of_the_run_and_reads_the_chosen_cases(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of("ColipriTrainer_CR", tmp_path, num_workers=1)
    trainer.initialize()
    data, made = trainer.data, []
    monkeypatch.setattr(
        "colipri.training.data.make_loader",
        lambda dataset, cases, *a, **k: made.append((list(cases), k["num_workers"])) or [],
    )
    list(data.validation_batches())
    list(data.validation_batches(data.val_cases[:1], num_workers=0))
    assert made == [(data.validated_cases, 1), (data.val_cases[:1], 0)]
    assert set(data.validated_cases) <= set(data.val_cases)


def test_the_run_names_the_cases_it_validates(tiny, tmp_path: Path) -> None:
    trainer = trainer_of("ColipriTrainer_C", tmp_path)
    trainer.initialize()
    trainer.describe_run()
    debug = json.loads((tmp_path / "debug.json").read_text())
    assert debug["validated_cases"] == trainer.data.validated_cases != []


@pytest.mark.parametrize(
    ("studies", "val", "samples", "epochs", "every"),
    [
        (20_000, 1304, 24_000, 84, 1),  # 1,000 studies: 1.4 % of an epoch
        (5_000, 0, 6_400, 79, 2),  # 1,000 studies: 5.2 %
        (5_000, 0, 800, 79, 3),  # twenty validations in all
        (100, 0, 200, 50, 1),
        (2, 0, 200, 8, 1),
    ],
)
def test_a_validation_costs_a_small_share_of_the_epochs(
    studies: int, val: int, samples: int, epochs: int, every: int
) -> None:
    fingerprint = fingerprint_of(studies)
    fingerprint["num_by_split"] = {"train": studies - val, "val": val}
    number, reason = plan_validation_interval(fingerprint, samples, epochs)
    assert number == every
    assert "% of an epoch" in reason


def test_the_plan_holds_the_interval_and_the_command_may_replace_it(tiny, tmp_path: Path) -> None:
    plans = ColipriPlanner(fingerprint_of(5_000)).plan()
    configuration = plans.configuration("3d_lowres")
    assert configuration.training.validate_every == 2
    assert "validate_every" in configuration.rationale
    assert trainer_of("ColipriTrainer_C", tmp_path).validate_every == 1
    assert trainer_of("ColipriTrainer_C", tmp_path, validate_every=5).validate_every == 5
