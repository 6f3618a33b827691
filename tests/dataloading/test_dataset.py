"""Samples: where the crop lies, what the caption says, and that both depend on the number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dataloading.hand_made_store import PatchOnly, write_store

from colipri.common.errors import ColipriError
from colipri.dataloading.dataset import ColipriDataset, LoadFailure, paired_cases
from colipri.dataloading.sampler import SampleKey
from colipri.objectives.finding_segmentation import FindingSegmentation
from colipri.preprocessing.label_map import UNKNOWN
from colipri.preprocessing.store import CaseStore
from colipri.text.prompts.same_text import text_key

REPORT = "Large left pleural effusion. No pneumothorax. The heart is enlarged."


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    rng = np.random.default_rng(0)
    big = rng.integers(-1000, 1000, (1, 40, 37, 30)).astype(np.int16)
    small = rng.integers(-1000, 1000, (1, 10, 12, 16)).astype(np.int16)
    return write_store(
        tmp_path / "Dataset001_Test" / "c",
        {
            "big": {"array": big, "report": REPORT, "study": "s1"},
            "small": {"array": small, "report": REPORT.upper().replace(" ", "  "), "study": "s2"},
            "image_only": {"array": small, "study": "s3"},
        },
    )


def _dataset(store: CaseStore, training: bool, seed: int = 3) -> ColipriDataset:
    return ColipriDataset(store, PatchOnly([16, 24, 16]), training, seed)


def test_sample(store: CaseStore) -> None:
    sample = _dataset(store, True).load(SampleKey("big", 5))
    assert sample.image.shape == (1, 16, 24, 16) and sample.image.dtype == torch.int16
    assert sample.body.shape == (2 * 3 * 2,) and sample.body.dtype == torch.bool
    assert sample.study == "s1" and sample.case == "big"
    assert sample.report.text == REPORT and sample.caption


@pytest.mark.parametrize("dtype", [np.int16, np.float16])
def test_label_maps_keep_every_value_beside_images_of_either_type(tmp_path, dtype) -> None:
    """float16 has no whole numbers above 2,048."""
    label = np.full((16, 24, 16), 4097, dtype=np.int16)
    label[:, :, 8:] = 32767
    cases = {
        "mapped": {"array": np.zeros((1, 16, 24, 16), dtype=dtype), "label": label},
        "other": {"array": np.ones((1, 16, 24, 16), dtype=dtype)},
    }
    store = write_store(tmp_path / "Dataset001_Test" / "c", cases)
    objectives = {"finding_segmentation": FindingSegmentation()}
    dataset = ColipriDataset(store, PatchOnly([16, 24, 16]), False, 0, objectives)
    for case, expected in (("mapped", label), ("other", np.full_like(label, UNKNOWN))):
        image = dataset.load(SampleKey(case, 0, text=False)).image
        assert image.shape == (2, 16, 24, 16)
        assert np.array_equal(image[1].view(torch.int16).numpy(), expected)
        assert (image[0] == (case == "other")).all()


def test_draws_are_functions_of_seed_and_number(store: CaseStore) -> None:
    first, again = (_dataset(store, True) for _ in range(2))
    for number in range(10):
        again.load(SampleKey("small", 100 + number))  # other samples in between change nothing
        a, b = (d.load(SampleKey("big", number)) for d in (first, again))
        assert torch.equal(a.image, b.image) and a.caption == b.caption
    seeds = [_dataset(store, True, seed).load(SampleKey("big", 0)).image for seed in range(5)]
    assert any(not torch.equal(seeds[0], other) for other in seeds[1:])


def test_training_crops_cover_the_volume_and_stay_in_it(store: CaseStore) -> None:
    dataset = _dataset(store, True)
    starts = np.array(
        [dataset.crop_start((40, 37, 30), np.random.default_rng(n)) for n in range(400)]
    )
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [24, 13, 14]
    small = np.array(
        [dataset.crop_start((10, 12, 16), np.random.default_rng(n)) for n in range(200)]
    )
    assert small.min(axis=0).tolist() == [-6, -12, 0]
    assert small.max(axis=0).tolist() == [0, 0, 0]


def test_validation_is_the_centre_and_the_full_caption(store: CaseStore) -> None:
    sample = _dataset(store, False).load(SampleKey("big", 0))
    image, _ = store.read_crop("big", (12, 6, 7), (16, 24, 16))
    assert torch.equal(sample.image, torch.from_numpy(image))
    other = _dataset(store, False, seed=99).load(SampleKey("big", 1))
    assert sample.caption == other.caption
    assert "effusion" in sample.caption and "heart" in sample.caption


def test_small_volumes_are_padded_with_air(store: CaseStore) -> None:
    image = _dataset(store, False).load(SampleKey("small", 0)).image
    assert (image[:, :3] == -1024).all() and (image[:, 3:13, 6:18] > -1024).all()


def test_image_only_case(store: CaseStore) -> None:
    sample = _dataset(store, True).load(SampleKey("image_only", 0))
    assert sample.report is None and sample.caption == "" and sample.text_key == ""


def test_equal_texts_have_equal_hashes(store: CaseStore) -> None:
    assert text_key(store.report("big")) == text_key(store.report("small")) != ""


def test_paired_cases(store: CaseStore) -> None:
    everything = store.identifiers()
    assert paired_cases(store, everything, include_image_only=False) == ["big", "small"]
    assert paired_cases(store, everything, include_image_only=True) == everything
    with pytest.raises(ColipriError, match="none of the 1 training cases has a report"):
        paired_cases(store, ["image_only"], include_image_only=False)


def test_failures_come_back_as_values(store: CaseStore) -> None:
    (store.folder / "small.b2nd").write_bytes(b"nothing")
    failure = _dataset(store, True)[SampleKey("small", 0)]
    assert isinstance(failure, LoadFailure)
    assert failure.case == "small" and "small.b2nd" in failure.problem
    assert "Traceback" in failure.details


def test_unknown_caption_setting_is_refused() -> None:
    with pytest.raises(ColipriError, match="captions has no entry 'shuffle'"):
        PatchOnly([16, 16, 16], captions={"shuffle": 1})


def test_image_and_text_are_mirrored_together(store: CaseStore) -> None:
    """A sample that names a side: either both as they are, or both mirrored."""
    plain = PatchOnly([16, 24, 16])
    mirroring = PatchOnly([16, 24, 16], augmentation={"flip_probability": 0.5})
    straight = ColipriDataset(store, plain, True, 3)
    datasets = ColipriDataset(store, mirroring, True, 3)
    mirrored = 0
    for number in range(40):
        before, after = (d.load(SampleKey("big", number)) for d in (straight, datasets))
        is_mirrored = "right pleural effusion" in after.report.text
        mirrored += is_mirrored
        expected = before.image.flip(-1) if is_mirrored else before.image
        assert torch.equal(after.image, expected)
        body = before.body.reshape(2, 3, 2)
        assert torch.equal(after.body.reshape(2, 3, 2), body.flip(-1) if is_mirrored else body)
        assert ("left" if is_mirrored else "right") not in after.caption
    assert 8 < mirrored < 32


def test_validation_is_never_mirrored(store: CaseStore) -> None:
    mirroring = PatchOnly([16, 24, 16], augmentation={"flip_probability": 1.0})
    sample = ColipriDataset(store, mirroring, False, 3).load(SampleKey("big", 0))
    assert "left pleural effusion" in sample.caption
