"""Folds by subject, the given split column, and files edited by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataloading.hand_made_store import write_store

from colipri.common.errors import ColipriError
from colipri.dataloading.splits import load_split, make_splits
from colipri.preprocessing.store import CaseStore


def _records(**splits: str) -> dict[str, dict[str, Any]]:
    """24 cases of 12 subjects (two each); ``splits`` gives some subjects' split column."""
    return {
        f"c{number:02d}": {
            "subject": f"p{number // 2:02d}",
            "split": splits.get(f"p{number // 2:02d}", ""),
        }
        for number in range(24)
    }


def _store(tmp_path: Path, records: dict[str, dict[str, Any]]) -> CaseStore:
    return write_store(tmp_path / "Dataset001_Test" / "colipriPlans_3d_lowres", records)


def _subjects(cases: list[str], records: dict[str, dict[str, Any]]) -> set[str]:
    return {records[case]["subject"] for case in cases}


def test_five_folds_by_subject() -> None:
    records = _records()
    folds = make_splits(records)
    assert len(folds) == 5
    validated = [case for fold in folds for case in fold["val"]]
    assert sorted(validated) == sorted(records)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(records)
        assert not _subjects(fold["train"], records) & _subjects(fold["val"], records)
    assert folds == make_splits(dict(reversed(records.items())))


def test_given_split_is_fold_0_and_test_is_in_no_fold() -> None:
    records = _records(p03="val", p04="val", p07="test", p11="train")
    folds = make_splits(records)
    assert _subjects(folds[0]["val"], records) == {"p03", "p04"}
    assert len(folds) == 5
    for fold in folds:
        assert "p07" not in _subjects(fold["train"] + fold["val"], records)
        assert len(fold["train"] + fold["val"]) == 22
        assert not _subjects(fold["train"], records) & _subjects(fold["val"], records)


def test_subject_on_two_sides_of_the_split_column() -> None:
    records = _records()
    records["c04"]["split"] = "test"
    with pytest.raises(ColipriError, match="subject p02 is in test and, with case c05, in train"):
        make_splits(records)


def test_too_few_subjects_say_what_to_do(tmp_path: Path) -> None:
    records = {name: {"subject": name, "split": ""} for name in "abcd"}
    store = _store(tmp_path, records)
    with pytest.raises(
        ColipriError, match="4 subjects are too few for 5 folds; train with fold all"
    ):
        load_split(store, 0)
    assert not (store.folder.parent / "splits_final.json").exists()
    assert load_split(store, "all") == (["a", "b", "c", "d"], [])


def test_few_subjects_with_a_given_split_have_fold_0_only(tmp_path: Path) -> None:
    records = {name: {"subject": name, "split": ""} for name in "abc"}
    records["c"]["split"] = "val"
    store = _store(tmp_path, records)
    assert load_split(store, 0) == (["a", "b"], ["c"])
    with pytest.raises(ColipriError, match="there is no fold 1"):
        load_split(store, 1)


def test_all_leaves_test_out(tmp_path: Path) -> None:
    store = _store(tmp_path, _records(p00="test"))
    train, val = load_split(store, "all")
    assert len(train) == 22 and "c00" not in train and val == []


def test_file_is_made_once_and_then_obeyed(tmp_path: Path) -> None:
    store = _store(tmp_path, _records())
    first = load_split(store, 2)
    path = store.folder.parent / "splits_final.json"
    splits = json.loads(path.read_text())
    assert splits[2] == {"train": first[0], "val": first[1]}
    path.write_text(json.dumps([{"train": ["c00", "c01"], "val": ["c02"]}]))
    assert load_split(store, 0) == (["c00", "c01"], ["c02"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"train": ["c00", "nobody"], "val": []}]', "unknown case 'nobody'"),
        ('[{"train": ["c00"], "val": ["c01"]}]', "subject p00 is in train and in val"),
        ('[{"train": ["c00"], "val": ["c22"]}]', "'c22' is a test case"),
        ('[{"train": [], "val": ["c02"]}]', "no case to train on"),
        ('{"train": ["c00"]}', "must be a list"),
        ('[{"train": "c00", "val": []}]', "must be a list"),
        ("[]", "must be a list"),
        ('[{"train": ', "not valid JSON"),
    ],
)
def test_files_edited_by_hand_are_checked(tmp_path: Path, content: str, message: str) -> None:
    store = _store(tmp_path, _records(p11="test"))
    (store.folder.parent / "splits_final.json").write_text(content)
    with pytest.raises(ColipriError, match=message) as caught:
        load_split(store, 0)
    assert "splits_final.json" in str(caught.value)


def test_cases_left_out_by_preprocessing_are_left_out_here(tmp_path: Path) -> None:
    store = _store(tmp_path, _records())
    store.manifest["failed"]["broken"] = "case broken: truncated"
    (store.folder.parent / "splits_final.json").write_text(
        '[{"train": ["c00", "broken"], "val": ["c02"]}]'
    )
    assert load_split(store, 0) == (["c00"], ["c02"])


def test_a_split_is_read_a_few_times_however_many_cases_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {f"c{n}": {"subject": f"p{n}", "split": ""} for n in range(200)}
    store = _store(tmp_path, records)
    made = []

    def counting(values: Any) -> set[Any]:
        made.append(1)
        return set(values)

    monkeypatch.setattr("colipri.dataloading.splits.set", counting, raising=False)
    train, val = load_split(store, 0)
    assert len(train) + len(val) == 200
    assert len(made) < 20  # 400 where every case made both sides' sets
