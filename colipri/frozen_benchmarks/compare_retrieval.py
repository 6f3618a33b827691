"""Compare the retrieval of two results on the same cases, paired by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colipri.common.errors import ColipriError
from colipri.evaluation.retrieval import DIRECTIONS, RECALL_AT, Ranks
from colipri.report_metrics.resampling import Resamples, difference, mean


@dataclass(frozen=True)
class RankedCases:
    """Ranks of the queries of a result file.

    Attributes:
        cases: Case -> its entry of ``case_ranks``.
        candidates: Direction -> candidates.
        where: The file.
    """

    cases: Mapping[str, Mapping[str, Any]]
    candidates: Mapping[str, int]
    where: str


def ranked_cases(content: Mapping[str, Any], where: str) -> RankedCases | None:
    """Find the ranks in a result of colipri_benchmark or colipri_retrieve -d; None without any.

    Args:
        content: Of the file.
        where: The file.
    """
    found = content.get("retrieval", content)
    entries = found.get("case_ranks") if isinstance(found, dict) else None
    if not entries:
        return None
    candidates = {direction: int(found[direction]["candidates"]) for direction in DIRECTIONS}
    return RankedCases({entry["case"]: entry for entry in entries}, candidates, where)


def compare_retrieval(
    first: RankedCases, second: RankedCases, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Return second minus first: direction -> measure -> {value, low, high, p_value}.

    Args:
        first: Of the first model.
        second: Of the second.
        num_resamples: Of patients; each resample judges both.
        seed: Of the resamples.

    Raises:
        ColipriError: other cases or patients. A rank depends on all candidates, so retrieval is
            never compared on the cases that two results have in common.
    """
    only = sorted(set(first.cases) ^ set(second.cases))
    if only or first.candidates != second.candidates:
        raise ColipriError(
            f"retrieval of {first.where} and {second.where} is among other candidates "
            f"({len(only)} cases are in one only{_named(only)}); it can be compared on the same "
            "cases alone"
        )
    cases = sorted(first.cases)
    patients = [str(first.cases[case]["subject"]) for case in cases]
    for case, patient in zip(cases, patients, strict=True):
        if str(second.cases[case]["subject"]) != patient:
            raise ColipriError(f"case {case} is of another patient in {second.where}")
    resamples = Resamples.of(patients, num_resamples, seed)
    return {
        direction: {
            name: difference(mean(second_values, resamples), mean(first_values, resamples))
            for name, first_values, second_values in _columns(first, second, cases, direction)
        }
        for direction in DIRECTIONS
    }


def _columns(
    first: RankedCases, second: RankedCases, cases: Sequence[str], direction: str
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Per measure the values of every query in both results."""
    sides = [_ranks(side, cases, direction) for side in (first, second)]
    columns = [
        (f"recall_at_{k}", sides[0].within(k), sides[1].within(k))
        for k in RECALL_AT
        if k < first.candidates[direction]  # else every rank is among the first k
    ]
    return [*columns, ("mean_reciprocal_rank", sides[0].reciprocal(), sides[1].reciprocal())]


def _ranks(side: RankedCases, cases: Sequence[str], direction: str) -> Ranks:
    rows = np.array([side.cases[case][direction] for case in cases], dtype=int)
    return Ranks(rows[:, 0], rows[:, 1], rows[:, 2])


def _named(only: Sequence[str]) -> str:
    return f": {', '.join(only[:3])}" if only else ""
