"""Scans with and without reports in one run: shares, schedules, weights, and exact resuming."""

from collections import Counter

import pytest

from colipri.common.errors import ColipriError
from colipri.dataloading.mixing import (
    MixedBatchSampler,
    image_only_batch_size,
)
from colipri.dataloading.sampler import StudyAwareBatchSampler
from colipri.plans.training import MixingSettings


def sampler(prefix, count, batch_size, shares=None, first_number=0):
    cases = [f"{prefix}{number:03d}" for number in range(count)]
    return StudyAwareBatchSampler(
        cases, cases, batch_size, 7, shares=shares, first_number=first_number
    )


def kinds(batch):
    return Counter(key.case[0] for key in batch)


def test_per_step_every_batch_has_its_contrastive_batch_and_image_only_scans_beside_it():
    mixed = MixedBatchSampler(sampler("p", 10, 4), sampler("i", 7, 3, first_number=1 << 40), None)
    for position in range(12):
        batch = mixed.batch(position)
        assert kinds(batch) == {"p": 4, "i": 3}
        assert [key.case[0] for key in batch] == ["p"] * 4 + ["i"] * 3
    numbers = [key.number for position in range(12) for key in mixed.batch(position)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_alternating_keeps_the_share_and_skips_no_batch_of_either_kind(share):
    paired, alone = sampler("p", 12, 4), sampler("i", 8, 4)
    mixed = MixedBatchSampler(paired, alone, share)
    steps = [mixed.batch(position) for position in range(200)]
    image_only = [batch for batch in steps if kinds(batch)["i"]]
    assert all(len(kinds(batch)) == 1 for batch in steps)
    assert len(image_only) == pytest.approx(200 * share, abs=1)
    assert image_only == [alone.batch(number) for number in range(len(image_only))]
    rest = [batch for batch in steps if kinds(batch)["p"]]
    assert rest == [paired.batch(number) for number in range(len(rest))]


def test_a_resumed_order_goes_on_where_it_stopped():
    whole = [
        MixedBatchSampler(sampler("p", 9, 4), sampler("i", 5, 2), 0.3).batch(n) for n in range(20)
    ]
    resumed = MixedBatchSampler(sampler("p", 9, 4), sampler("i", 5, 2), 0.3)
    resumed.advance(11)
    iterator = iter(resumed)
    assert [next(iterator) for _ in range(9)] == whole[11:]


def test_a_data_set_of_half_the_weight_comes_up_half_as_often_and_completely():
    shares = [1.0] * 12 + [0.5] * 12
    weighted = sampler("x", 24, 6, shares)
    assert weighted.studies_per_pass == 18
    counts = Counter(
        int(key.case[1:]) for position in range(8 * 3) for key in weighted.batch(position)
    )
    assert [counts[number] for number in range(12)] == [8] * 12
    assert [counts[number] for number in range(12, 24)] == [4] * 12


def test_an_odd_share_reaches_every_study_in_the_end():
    weighted = sampler("x", 20, 5, [1.0] * 10 + [0.3] * 10)
    passes = 100
    counts = Counter(
        int(key.case[1:])
        for position in range(passes * weighted.batches_per_pass)
        for key in weighted.batch(position)
    )
    assert set(counts) == set(range(20))
    rare = sum(counts[number] for number in range(10, 20)) / 10
    frequent = sum(counts[number] for number in range(10)) / 10
    assert rare / frequent == pytest.approx(0.3, abs=0.03)


def test_shares_follow_the_data_unless_they_are_given():
    assert MixingSettings().share(300, 100) == 0.25
    assert MixingSettings().share(100, 900) == 0.5
    assert MixingSettings().share(100, 0) == 0.0
    assert MixingSettings(image_only_share=0.8).share(100, 100) == 0.8
    assert image_only_batch_size(32, 0.5) == 32
    assert image_only_batch_size(30, 0.25) == 10


def test_weights_become_shares_relative_to_the_heaviest():
    settings = MixingSettings.from_dict({"dataset_weights": {"A": 4, "B": 1}})
    assert settings.shares_of_cases(["A", "B", "C"]) == [1.0, 0.25, 0.25]
    assert MixingSettings().shares_of_cases(["A", "B"]) is None
    with pytest.raises(ColipriError, match=r"no data set 'B'.*A, C"):
        settings.check_datasets({"A", "C"})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"shedule": "per_step"}, "shedule"),
        ({"schedule": "random"}, "random"),
        ({"image_only_share": 1.0}, "image_only_share"),
        ({"dataset_weights": {"A": 0}}, "dataset_weights.A must be a number above 0, not 0"),
    ],
)
def test_settings_that_cannot_be_are_named(content, part):
    with pytest.raises(ColipriError, match=part):
        MixingSettings.from_dict(content)
