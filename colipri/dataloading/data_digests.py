"""Digests of a training's cases, so that a training that continues notices changed data.

A checkpoint keeps, for every case, short digests of its stored image, its structured report, its
labels, and the entries that decide the order of the data. The cases' side of the split is part of
the record, so an edited splits_final.json is noticed as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from colipri.common.hashing import json_digest
from colipri.preprocessing.store import CaseStore

# What is digested, in the order in which a record holds the digests.
KINDS = ("image", "report", "labels", "subject, study or data set")
SIDES = ("train", "val")
DIGEST_LENGTH = 16  # hex digits: chance collisions are impossible in practice, and files stay small
_SHOWN = 5  # cases named per kind of change; the count says how many there are

# side -> case -> one digest per kind
DataDigests = dict[str, dict[str, list[str]]]


def digest_data(
    store: CaseStore, train_cases: Sequence[str], val_cases: Sequence[str]
) -> DataDigests:
    """Compute the digests of all cases that a training uses.

    Args:
        store: the preprocessed cases.
        train_cases: cases that are trained on.
        val_cases: cases that are validated on.
    """
    return {
        side: {case: _digests(store, case) for case in cases}
        for side, cases in zip(SIDES, (train_cases, val_cases), strict=True)
    }


def data_changes(before: DataDigests, now: DataDigests) -> dict[str, list[str]]:
    """Compare two records of the same data set.

    Returns:
        What has changed -> the sorted cases that it concerns; empty if the data are the same.
    """
    changes: dict[str, list[str]] = {}
    side_before = {case: side for side in SIDES for case in before[side]}
    side_now = {case: side for side in SIDES for case in now[side]}
    for case in sorted(side_before | side_now):
        old, new = side_before.get(case), side_now.get(case)
        if old is None:
            changes.setdefault(f"new in {new}", []).append(case)
        elif new is None:
            changes.setdefault(f"no longer in {old}", []).append(case)
        else:
            if old != new:
                changes.setdefault(f"moved from {old} to {new}", []).append(case)
            for kind, was, is_now in zip(KINDS, before[old][case], now[new][case], strict=True):
                if was != is_now:
                    changes.setdefault(f"{kind} changed", []).append(case)
    return changes


def describe_changes(changes: Mapping[str, Sequence[str]]) -> str:
    """Name the changed cases in one line, for example "report changed: case_1, case_2"."""
    return "; ".join(f"{what}: {_names(cases)}" for what, cases in changes.items())


def _names(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
    return ", ".join(cases[:_SHOWN]) + more


def _digests(store: CaseStore, case: str) -> list[str]:
    record, report = store.record(case), store.report(case)
    contents = (
        record["files"],
        None if report is None else report.to_json(),
        record["findings"],
        [record["subject"], record["study"], record["dataset"]],
    )
    return [json_digest(content, DIGEST_LENGTH) for content in contents]
