"""Batches of distinct studies, the same after any interruption and for any number of processes."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from colipri.common.errors import ColipriError
from colipri.dataloading.sampler import SampleKey, StudyAwareBatchSampler

CASES = [f"s{study:02d}_r{kernel}" for study in range(13) for kernel in range(1 + study % 3)]
STUDIES = [case.split("_")[0] for case in CASES]


def _sampler(**changes: int) -> StudyAwareBatchSampler:
    arguments = {"batch_size": 4, "seed": 7, **changes}
    return StudyAwareBatchSampler(CASES, STUDIES, **arguments)


def _take(sampler: StudyAwareBatchSampler, count: int) -> list[list[SampleKey]]:
    return list(itertools.islice(iter(sampler), count))


def test_no_study_twice_in_a_batch() -> None:
    for batch in _take(_sampler(), 200):
        studies = [key.case.split("_")[0] for key in batch]
        assert len(batch) == len(set(studies)) == 4


def test_every_reconstruction_of_every_study_comes_up_equally_often() -> None:
    counts = Counter(key.case for batch in _take(_sampler(), 1500) for key in batch)
    assert set(counts) == set(CASES)
    per_study = Counter()
    for case, count in counts.items():
        per_study[case.split("_")[0]] += count
    expected = 1500 * 4 / 13
    assert all(abs(count - expected) < 0.15 * expected for count in per_study.values())
    three = [counts[f"s02_r{kernel}"] for kernel in range(3)]
    assert min(three) > 0.7 * max(three)


def test_sample_numbers_count_on() -> None:
    numbers = [key.number for batch in _take(_sampler(), 5) for key in batch]
    assert numbers == list(range(20))


def test_advance_and_state_continue_the_same_order() -> None:
    whole = _take(_sampler(), 30)
    advanced = _sampler()
    advanced.advance(11)
    assert _take(advanced, 19) == whole[11:]
    first = _sampler()
    assert _take(first, 17) == whole[:17]
    second = _sampler()
    second.advance(first.position)
    assert _take(second, 13) == whole[17:]


def test_order_does_not_depend_on_the_order_of_the_arguments() -> None:
    reverse = StudyAwareBatchSampler(CASES[::-1], STUDIES[::-1], 4, 7)
    assert _take(reverse, 10) == _take(_sampler(), 10)


def test_seeds_give_other_orders() -> None:
    assert _take(_sampler(seed=1), 3) != _take(_sampler(seed=2), 3)


def test_fewer_studies_than_the_batch() -> None:
    sampler = StudyAwareBatchSampler(["a1", "a2", "b"], ["a", "a", "b"], 5, seed=0)
    for batch in _take(sampler, 20):
        counts = Counter(key.case for key in batch)
        assert len(batch) == 5
        assert counts["b"] in (2, 3)
        assert counts["a1"] >= 1 and counts["a2"] >= 1  # the other reconstruction comes first


def test_empty_batches_and_no_cases_are_refused() -> None:
    with pytest.raises(ColipriError, match="batch of 0 cases"):
        _sampler(batch_size=0)
    with pytest.raises(ColipriError, match="no case"):
        StudyAwareBatchSampler([], [], 2, 0)
