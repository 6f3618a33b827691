"""Features of a data set: what is stored, what is made again, and who may read it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import DATASET, write_checkpoint

from colipri.common.errors import ColipriError
from colipri.features.encoding import EncodingRun, encode_features
from colipri.features.keys import feature_key
from colipri.features.shards import CaseFeatures, Shard
from colipri.features.statistics import STATISTICS, volume_statistics
from colipri.features.store import FeatureStore
from colipri.features.writing import FeatureWriter
from colipri.inference.labelled_cases import CaseCollection, LabelledCase, collect_cases
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.volume import PreparedVolume


@pytest.fixture(scope="module")
def predictor(tiny_folders: Any) -> ColipriPredictor:
    return ColipriPredictor.from_checkpoint(tiny_folders.checkpoint)


@pytest.fixture(autouse=True)
def _environment(tiny: Any) -> None:
    """Every test here looks for the data set by its number."""


def all_cases(predictor: ColipriPredictor) -> tuple[CaseCollection, list[LabelledCase]]:
    collection = collect_cases(predictor, 950)
    return collection, [collection.cases[name] for name in sorted(collection.cases)]


def encode(predictor: ColipriPredictor, folder: Path, **run: Any) -> FeatureStore | None:
    return encode_features(predictor, *all_cases(predictor), EncodingRun(folder, **run))


def test_features_are_the_predictors(predictor: ColipriPredictor, tmp_path: Path) -> None:
    store = encode(predictor, tmp_path / "features")
    assert store is not None and len(store.identifiers()) == 12 and store.failed == {}
    _, cases = all_cases(predictor)
    for case in (cases[0], cases[7]):
        volume = case.volume()
        encoded = predictor.encode(volume)
        found = store.read(case.identifier)
        assert found.tokens == pytest.approx(encoded.tokens.numpy(), abs=2e-3)  # half precision
        assert np.array_equal(found.positions, encoded.positions)
        assert (found.grid, found.start) == (encoded.grid, encoded.start)
        (embedding,) = store.pooled([case.identifier])
        assert embedding == pytest.approx(encoded.embedding.numpy(), abs=1e-5)
        (mean,) = store.pooled([case.identifier], "mean")
        assert mean == pytest.approx(encoded.tokens.numpy().mean(axis=0), abs=1e-6)
        (numbers,) = store.pooled([case.identifier], "statistics")
        assert np.array_equal(numbers, volume_statistics(volume, predictor.configuration))
        assert store.num_tokens(case.identifier) == len(encoded.tokens)
    assert store.index["dataset"] == DATASET and store.index["token_width"] == 36


def test_merged_tokens_are_few(predictor: ColipriPredictor, tmp_path: Path) -> None:
    store = encode(predictor, tmp_path / "features", num_tokens=8)
    assert store is not None
    for name in store.identifiers():
        found = store.read(name)
        assert 1 <= len(found.tokens) <= 8 and found.positions.max() <= 1
        weights = found.counts / found.counts.sum()
        mean = (found.tokens.astype(np.float32) * weights[:, None]).sum(axis=0)
        assert mean == pytest.approx(store.pooled([name], "mean")[0], abs=2e-2)


def test_an_interrupted_run_continues(
    predictor: ColipriPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(predictor, tmp_path / "whole")
    assert whole is not None
    folder = tmp_path / "interrupted"
    add, count = FeatureWriter.add, 0

    def stop_after_five(self: FeatureWriter, case: CaseFeatures) -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        add(self, case)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "add", stop_after_five)
        with pytest.raises(KeyboardInterrupt):
            encode(predictor, folder)
    with pytest.raises(ColipriError, match="are not finished"):
        FeatureStore(folder).identifiers()
    encoded = []

    def remember(self: FeatureWriter, case: CaseFeatures) -> None:
        encoded.append(case.name)
        add(self, case)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "add", remember)
        store = encode(predictor, folder)
        assert encoded == whole.identifiers()[5:]  # the first five are not encoded again
        assert encode(predictor, folder) is not None and len(encoded) == 7
    assert store is not None
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
    names = whole.identifiers()
    assert store.pooled(names) == pytest.approx(whole.pooled(names), abs=1e-5)


def test_parts_together_are_the_whole(predictor: ColipriPredictor, tmp_path: Path) -> None:
    whole = encode(predictor, tmp_path / "whole")
    folder = tmp_path / "parts"
    assert encode(predictor, folder, part=(1, 3)) is None
    assert encode(predictor, folder, part=(0, 3)) is None
    store = encode(predictor, folder, part=(2, 3))
    assert store is not None and whole is not None
    names = whole.identifiers()
    assert store.identifiers() == names
    assert store.pooled(names) == pytest.approx(whole.pooled(names), abs=1e-5)
    for name in names:
        assert store.read(name).tokens == pytest.approx(whole.read(name).tokens, abs=4e-3)


def test_features_of_another_model_are_refused(predictor: ColipriPredictor, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    encode(predictor, folder)
    other = predictor.untrained(seed=7)
    with pytest.raises(ColipriError, match="made by a model with other weights; give another"):
        encode(other, folder)
    with pytest.raises(ColipriError, match="another number of tokens"):
        encode(predictor, folder, num_tokens=8)
    windowed = ColipriPredictor(predictor.checkpoint, torch.device("cpu"), window=(16, 16, 16))
    with pytest.raises(ColipriError, match="with another --window"):
        encode(windowed, folder)
    store = encode(other, folder, overwrite=True)
    assert store is not None and store.key == feature_key(other).to_dict()
    assert store.key["weights"] != feature_key(predictor).weights


def test_a_copied_checkpoint_has_the_same_key(
    predictor: ColipriPredictor, tmp_path: Path, tiny: Any
) -> None:
    copy = tmp_path / "renamed.pth"
    shutil.copy(tiny.checkpoint, copy)
    assert feature_key(ColipriPredictor.from_checkpoint(copy)) == feature_key(predictor)
    plans = json.loads(json.dumps(predictor.checkpoint["plans"]))
    plans["foreground_intensity_properties_per_channel"]["0"]["percentile_99_5"] += 100
    other = write_checkpoint(tmp_path / "window.pth", plans=plans)
    key = feature_key(ColipriPredictor.from_checkpoint(other))
    assert key.preprocessing != feature_key(predictor).preprocessing


def test_changed_cases_are_encoded_again(
    predictor: ColipriPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    before = encode(predictor, folder)
    from colipri.features import encoding

    sources = encoding.case_sources

    def changed(*arguments: Any) -> dict[str, str]:
        return {**sources(*arguments), "case_004": "other bytes"}

    encoded = []
    monkeypatch.setattr(encoding, "case_sources", changed)
    add = FeatureWriter.add
    monkeypatch.setattr(
        FeatureWriter, "add", lambda self, case: (encoded.append(case.name), add(self, case))
    )
    after = encode(predictor, folder)
    assert encoded == ["case_004"] and before is not None and after is not None
    assert after.identifiers() == before.identifiers()
    assert after.read("case_004").source == "other bytes"


def test_a_case_that_cannot_be_read_is_named_and_tried_again(
    predictor: ColipriPredictor, tmp_path: Path
) -> None:
    collection, cases = all_cases(predictor)
    broken = True

    def volume() -> Any:
        if broken:
            raise ColipriError("case_002: the file is damaged")
        return collection.cases["case_002"].volume()

    cases[2] = replace(cases[2], volume=volume)
    run = EncodingRun(tmp_path / "features")
    store = encode_features(predictor, collection, cases, run)
    assert store is not None and store.failed == {"case_002": "case_002: the file is damaged"}
    assert len(store.identifiers()) == 11
    with pytest.raises(ColipriError, match="no features of case 'case_002': case_002: the file"):
        store.read("case_002")
    broken = False
    store = encode_features(predictor, collection, cases, run)
    assert store is not None and store.failed == {} and len(store.identifiers()) == 12


def test_damaged_and_foreign_files(predictor: ColipriPredictor, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    encode(predictor, folder)
    (shard,) = folder.glob("shard-*")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(ColipriError, match="missing or damaged"):
        FeatureStore(folder).read("case_000")
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("do not delete")
    with pytest.raises(ColipriError, match="holds other files"):
        encode(predictor, other)
    with pytest.raises(ColipriError, match="holds other files"):
        encode(predictor, other, overwrite=True)
    assert (other / "thesis.txt").is_file()
    with pytest.raises(ColipriError, match="do not exist"):
        FeatureStore(tmp_path / "nowhere").identifiers()


def test_features_too_large_for_half_precision_are_refused() -> None:
    pooled = {k: np.zeros(1, np.float32) for k in ("embedding", "mean", "max", "statistics")}
    with (
        np.errstate(over="ignore"),
        pytest.raises(ColipriError, match="a: a feature is not finite"),
    ):
        CaseFeatures(
            "a",
            "",
            np.array([[1e6]], dtype=np.float32).astype(np.float16),
            np.zeros((1, 3), np.uint16),
            np.ones(1, np.uint32),
            (1, 1, 1),
            (0, 0, 0),
            pooled,
        )


def test_statistics_of_a_volume_made_by_hand(predictor: ColipriPredictor) -> None:
    """One token of body, 8 voxels along each axis, with soft tissue in its lower half."""
    array = np.full((1, 16, 8, 8), -1000, dtype=np.int16)
    array[0, :4] = 50
    grid = np.zeros((4, 2, 2), dtype=np.uint8)
    grid[:2] = 1
    properties = {
        "pad_value": -1000,
        "body_grid": grid,
        "cell_size": [4, 4, 4],
        "token_patch_size": [8, 8, 8],
    }
    configuration = predictor.configuration
    numbers = volume_statistics(PreparedVolume("a", array, properties), configuration)
    found = dict(zip(STATISTICS, numbers.tolist(), strict=True))
    step = configuration.spacing[0]
    assert found["extent_superior_mm"] == pytest.approx(16 * step)
    assert found["body_fraction"] == 0.5 and found["mean"] == -475.0
    assert found["body_volume_litres"] == pytest.approx(512 * np.prod(configuration.spacing) / 1e6)
    assert found["share_above_0"] == 0.5 and found["percentile_99"] == 50.0


def test_shards_are_read_without_colipri(predictor: ColipriPredictor, tmp_path: Path) -> None:
    import blosc2

    folder = tmp_path / "features"
    store = encode(predictor, folder, num_tokens=1)
    assert store is not None
    (path,) = folder.glob("shard-*")
    array = blosc2.open(str(path), mode="r")
    names = [case["name"] for case in array.schunk.vlmeta["colipri"]["cases"]]
    assert names == store.identifiers() == list(Shard(path).rows)
    assert array[:].shape == (12, 36) and array.dtype == np.float16
