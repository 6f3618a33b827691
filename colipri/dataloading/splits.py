"""Who is trained on and who is validated on: nnU-Net's splits_final.json, by subject.

$colipri_preprocessed/DatasetXXX/splits_final.json is a list with one {"train": [...], "val": [...]}
per fold. It is made at first use and never changed afterwards, so you may edit it, or provide it
before the first training; its content is checked. A subject is never on two sides. Cases whose
split column says test are in no fold. If the split column names validation cases, fold 0 is that
split and folds 1 to 4 divide the subjects of train and val again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colipri.common.atomic import atomic_write_json, read_json
from colipri.common.errors import ColipriError
from colipri.preprocessing.store import CaseStore

logger = logging.getLogger(__name__)

SPLITS_FILE = "splits_final.json"
NUM_FOLDS = 5
SEED = 12345  # nnU-Net's

Splits = list[dict[str, list[str]]]


def load_split(store: CaseStore, fold: int | str) -> tuple[list[str], list[str]]:
    """Return the cases to train on and to validate on.

    Args:
        store: of any configuration; the splits are the data set's.
        fold: 0 to 4, or "all": every case that is not test is trained on, none validated on.

    Returns:
        Sorted case identifiers (train, val), only such as the store holds.

    Raises:
        ColipriError: too few subjects, no such fold, or a file edited by hand that contradicts
            itself (unknown or test cases, a case or subject on two sides).
    """
    records = store.manifest["cases"]
    if fold == "all":
        train = sorted(case for case, record in records.items() if record["split"] != "test")
        if not train:
            raise ColipriError(f"all cases in {store.folder} are test cases: nothing to train on")
        return train, []
    path = store.folder.parent / SPLITS_FILE
    splits = load_splits(path, records)
    if not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise ColipriError(
            f"{path} has {len(splits)} folds (0 to {len(splits) - 1}), there is no fold {fold}; "
            "or train on everything with fold all"
        )
    return _checked(splits[fold], fold, path, store)


def load_splits(path: Path, records: Mapping[str, Mapping[str, Any]]) -> Splits:
    """Read splits_final.json, or make it.

    Args:
        path: of the file.
        records: case -> {"subject", "split", ...} (manifest's), used where the file is missing.
    """
    if not path.is_file():
        atomic_write_json(path, make_splits(records))
        logger.info("Wrote %s", path)
    splits = read_json(path)
    well_formed = isinstance(splits, list) and all(
        isinstance(fold, dict)
        and all(
            isinstance(fold.get(side), list) and all(isinstance(case, str) for case in fold[side])
            for side in ("train", "val")
        )
        for fold in splits
    )
    if not well_formed or not splits:
        raise ColipriError(
            f'{path} must be a list of {{"train": [cases], "val": [cases]}}, one per fold'
        )
    return splits


def make_splits(records: Mapping[str, Mapping[str, Any]]) -> Splits:
    """Divide subjects into folds; the same for the same cases, on every machine.

    Args:
        records: case -> {"subject": ..., "split": "train" | "val" | "test" | ""}.

    Raises:
        ColipriError: a subject is on two sides of the split column, or there are too few subjects.
    """
    _check_split_column(records)
    pool = {case: record for case, record in records.items() if record["split"] != "test"}
    given_val = sorted(case for case, record in pool.items() if record["split"] == "val")
    subjects = sorted({record["subject"] for record in pool.values()})
    folds = _folds_by_subject(pool, subjects) if len(subjects) >= NUM_FOLDS else []
    if given_val:
        given = {"train": sorted(set(pool) - set(given_val)), "val": given_val}
        if not given["train"]:
            raise ColipriError("the split column has validation cases but no training case")
        return [given, *folds[1:]]
    if not folds:
        raise ColipriError(
            f"{len(subjects)} subjects are too few for {NUM_FOLDS} folds; train with fold all, or "
            "name validation cases in the split column of cases.csv (fold 0 is then that split)"
        )
    return folds


def _folds_by_subject(pool: Mapping[str, Mapping[str, Any]], subjects: Sequence[str]) -> Splits:
    from sklearn.model_selection import KFold

    folds: Splits = []
    for _, val_index in KFold(NUM_FOLDS, shuffle=True, random_state=SEED).split(subjects):
        held_out = {subjects[index] for index in val_index}
        val = sorted(case for case, record in pool.items() if record["subject"] in held_out)
        folds.append({"train": sorted(set(pool) - set(val)), "val": val})
    return folds


def _check_split_column(records: Mapping[str, Mapping[str, Any]]) -> None:
    side_of: dict[str, str] = {}
    for case in sorted(records):
        side = records[case]["split"] or "train"
        subject = records[case]["subject"]
        if side_of.setdefault(subject, side) != side:
            raise ColipriError(
                f"subject {subject} is in {side_of[subject]} and, with case {case}, in {side}; "
                "give all cases of a subject the same split in cases.csv, then preprocess again"
            )


def _checked(
    split: Mapping[str, Sequence[str]], fold: int, path: Path, store: CaseStore
) -> tuple[list[str], list[str]]:
    """Return the fold's cases that the store holds, after checking all of them."""
    records = store.manifest["cases"]
    failed = {*store.manifest["failed"], *store.manifest.get("left_out", {})}
    where = f"{path}, fold {fold}"
    side_of_subject: dict[str, str] = {}
    sides: dict[str, list[str]] = {"train": [], "val": []}
    for side, kept in sides.items():
        for case in sorted(set(split[side])):
            if case in failed:
                logger.warning("%s: case %s was left out by preprocessing", where, case)
                continue
            if case not in records:
                raise ColipriError(f"{where}: unknown case '{case}'; correct or delete the file")
            if records[case]["split"] == "test":
                raise ColipriError(f"{where}: '{case}' is a test case; correct or delete the file")
            subject = records[case]["subject"]
            if side_of_subject.setdefault(subject, side) != side:
                raise ColipriError(
                    f"{where}: subject {subject} is in train and in val (case {case})"
                )
            kept.append(case)
    if not sides["train"]:
        raise ColipriError(f"{where}: there is no case to train on")
    used = {*sides["train"], *sides["val"]}
    absent = [
        case for case, record in records.items() if case not in used and record["split"] != "test"
    ]
    if absent:
        logger.warning(
            "%s leaves out %d cases (e.g. %s); if they were added later, delete the file and it "
            "is made again",
            where,
            len(absent),
            absent[0],
        )
    return sides["train"], sides["val"]
