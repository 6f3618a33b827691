"""The predictor sees what the trainer's validation sees, by every way in; and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import DATASET, write_checkpoint

from colipri.common.devices import find_device
from colipri.common.errors import ColipriError
from colipri.features.keys import feature_key
from colipri.inference.inputs import find_images
from colipri.inference.predictor import ColipriPredictor
from colipri.inference.volume import PreparedVolume, StoredVolume
from colipri.preprocessing.store import CaseStore


@pytest.fixture(scope="module")
def predictor(tiny_folders: Any) -> ColipriPredictor:
    return ColipriPredictor.from_checkpoint(tiny_folders.checkpoint)


@pytest.fixture(scope="module")
def store(tiny_folders: Any) -> CaseStore:
    return CaseStore(tiny_folders.preprocessed / DATASET / "colipriPlans_3d_lowres")


def _similar(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def test_same_embedding_as_in_the_trainers_validation(
    predictor: ColipriPredictor, store: CaseStore
) -> None:
    from colipri.dataloading.dataset import ColipriDataset
    from colipri.dataloading.sampler import SampleKey
    from colipri.objectives.batch import make_batch
    from colipri.training.batch_encoder import BatchEncoder

    encoder = BatchEncoder(
        predictor.model,
        predictor.plans,
        predictor.configuration,
        predictor.tokenizer,
        torch.device("cpu"),
        autocast=False,
    )
    dataset = ColipriDataset(store, predictor.configuration, training=False, seed=0)
    for number, case in enumerate(store.identifiers()[:3]):
        sample = dataset.load(SampleKey(case, number))
        batch = make_batch([sample], {}, None)
        (part,) = encoder.image_parts(batch, 1, 0, "images")
        with torch.inference_mode():
            expected = encoder.encode_images(part)[0].embedding[0]
        encoded = predictor.encode_case(store, case)
        assert torch.allclose(encoded.embedding, expected, atol=1e-5)
        if sample.caption:
            text = predictor.encode_texts([sample.caption])
            assert torch.allclose(text, encoder.encode_texts([sample.caption]), atol=1e-5)


def test_file_and_preprocessed_case_agree(
    predictor: ColipriPredictor, store: CaseStore, tiny: Any
) -> None:
    file = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    from_file = predictor.encode_file(find_images(file)[0])
    stored = predictor.encode_case(store, "case_001")
    assert torch.allclose(from_file.embedding, stored.embedding, atol=1e-6)
    assert np.array_equal(from_file.positions, stored.positions)
    assert from_file.name == stored.name == "case_001"


def test_air_is_left_out(store: CaseStore, tiny: Any) -> None:
    predictor = ColipriPredictor.from_checkpoint(tiny.checkpoint, window=(64, 48, 56))
    encoded = predictor.encode_case(store, "case_000")
    body = StoredVolume(store, "case_000").crop(encoded.start, (64, 48, 56))[1]
    assert encoded.grid == body.shape
    assert np.array_equal(encoded.positions, np.argwhere(body))
    assert 0 < len(encoded.tokens) < body.size
    assert encoded.tokens.shape[1] == 36 and encoded.embedding.shape == (32,)
    assert float(encoded.embedding.norm()) == pytest.approx(1, abs=1e-5)
    dense = predictor.project(encoded)
    assert dense.shape == (len(encoded.tokens), 32)
    assert torch.allclose(dense.norm(dim=1), torch.ones(len(dense)), atol=1e-5)


def test_one_window_is_the_whole(store: CaseStore, tiny: Any) -> None:
    """Where the volume fits into one window, both ways are one; windows of half the size are
    another grid, but still the same volume."""
    whole = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    larger = ColipriPredictor.from_checkpoint(tiny.checkpoint, window=(40, 32, 48))
    shape = StoredVolume(store, "case_002").shape
    assert all(s <= w for s, w in zip(shape, larger.window or (), strict=True))
    for model in (whole, larger):
        model.window = (40, 32, 48)
    direct = whole._whole  # the same size without windows
    whole.configuration = replace(whole.configuration, patch_size=[40, 32, 48])
    (first,) = direct([StoredVolume(store, "case_002")])
    second = larger.encode(StoredVolume(store, "case_002"))
    assert torch.allclose(first.embedding, second.embedding, atol=1e-5)
    assert np.array_equal(first.positions, second.positions) and first.start == second.start


def test_windows_cover_all_body(store: CaseStore, tiny: Any) -> None:
    windows = ColipriPredictor.from_checkpoint(tiny.checkpoint, window=(16, 16, 24))
    volume = StoredVolume(store, "case_002")
    encoded = windows.encode(volume)
    size = [g * 8 for g in encoded.grid]
    assert all(s >= v for s, v in zip(size, volume.shape, strict=True))
    body = volume.crop(encoded.start, size)[1]
    assert np.array_equal(encoded.positions, np.argwhere(body))
    assert torch.isfinite(encoded.embedding).all()


def test_finer_spacing_makes_a_finer_grid(predictor: ColipriPredictor, tiny: Any) -> None:
    file = find_images(tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz")[0]
    finer = ColipriPredictor.from_checkpoint(tiny.checkpoint, spacing=(4.0, 4.0, 4.0))
    assert finer.window == finer.patch_size == (32, 24, 40)
    volume = finer.prepare(file)
    coarse = predictor.prepare(file)
    assert all(abs(a - 2 * b) <= 1 for a, b in zip(volume.shape, coarse.shape, strict=True))
    encoded = finer.encode(volume)
    assert len(encoded.tokens) > 3 * len(predictor.encode(coarse).tokens)
    assert predictor.plans.configurations["3d_lowres"].spacing == [8.0, 8.0, 8.0]


def test_volume_of_air(predictor: ColipriPredictor) -> None:
    properties = {
        "pad_value": -1024.0,
        "body_grid": np.zeros((10, 10, 10), np.uint8),
        "cell_size": (4, 4, 4),
        "token_patch_size": (8, 8, 8),
    }
    air = PreparedVolume("air", np.full((1, 40, 40, 40), -1000, np.int16), properties)
    assert torch.isfinite(predictor.encode(air).embedding).all()
    predictor.window = (16, 16, 16)
    assert torch.isfinite(predictor.encode(air).embedding).all()
    predictor.window = None


def test_texts_in_batches_and_alone(predictor: ColipriPredictor) -> None:
    texts = [
        f"There is a pleural effusion of size {n}." + " The heart." * (n % 7) for n in range(90)
    ]
    together = predictor.encode_texts(texts)
    assert together.shape == (90, 32)
    for number in (0, 63, 64, 89):
        alone = predictor.encode_texts([texts[number]])[0]
        assert torch.allclose(together[number], alone, atol=1e-5)  # padding does not count
    with pytest.raises(ColipriError, match="empty text"):
        predictor.encode_texts(["effusion", " "])
    with pytest.raises(ColipriError, match="no text"):
        predictor.encode_texts([])


def test_encode_many_keeps_the_order_and_names_the_broken(
    predictor: ColipriPredictor, store: CaseStore, tiny: Any, tmp_path: Path
) -> None:
    names = store.identifiers()[:5]
    makers = [lambda name=name: StoredVolume(store, name) for name in names]
    assert [one.name for one in predictor.encode_many(makers)] == names
    folder = tmp_path / "scans"
    folder.mkdir()
    source = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    (folder / "good.nii.gz").write_bytes(source.read_bytes())
    (folder / "bad.nii.gz").write_bytes(b"no image at all" * 100)
    bad, good = predictor.encode_files(find_images(folder))
    assert isinstance(bad, ColipriError) and "bad.nii.gz" in str(bad)
    assert not isinstance(good, ColipriError) and good[1].name == "good"


@pytest.mark.parametrize("window", [None, (16, 16, 24)])
def test_batches_and_alone_are_equal(
    store: CaseStore, tiny: Any, monkeypatch: pytest.MonkeyPatch, window: Any
) -> None:
    model = ColipriPredictor.from_checkpoint(tiny.checkpoint, window=window)
    sizes = []
    encode_image = model.model.encode_image
    monkeypatch.setattr(
        model.model,
        "encode_image",
        lambda image, *rest: (sizes.append(len(image)), encode_image(image, *rest))[1],
    )
    names = store.identifiers()[:5]
    together = list(model.encode_many([partial(StoredVolume, store, name) for name in names]))
    assert max(sizes) > 1  # several crops in one pass
    monkeypatch.setattr("colipri.inference.crops.MOST_CROPS", 1)
    for name, encoded in zip(names, together, strict=True):
        alone = model.encode_case(store, name)
        assert torch.allclose(encoded.embedding, alone.embedding, atol=1e-5)
        assert torch.allclose(encoded.tokens, alone.tokens, atol=1e-4)
        assert np.array_equal(encoded.positions, alone.positions) and encoded.start == alone.start


def test_a_broken_file_does_not_end_its_batch(
    predictor: ColipriPredictor, tiny: Any, tmp_path: Path
) -> None:
    source = (tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz").read_bytes()
    for number in range(4):
        content = b"no image" * 99 if number == 1 else source
        (tmp_path / f"scan_{number}.nii.gz").write_bytes(content)
    found = list(predictor.encode_files(find_images(tmp_path)))
    assert [isinstance(one, ColipriError) for one in found] == [False, True, False, False]
    names = [one[1].name for one in found if not isinstance(one, ColipriError)]
    assert names == ["scan_0", "scan_2", "scan_3"]


def test_bf16_is_near_fp32(store: CaseStore, tiny: Any) -> None:
    exact = ColipriPredictor.from_checkpoint(tiny.checkpoint).encode_case(store, "case_000")
    half = ColipriPredictor.from_checkpoint(tiny.checkpoint, precision="bf16")
    encoded = half.encode_case(store, "case_000")
    assert not torch.equal(encoded.embedding, exact.embedding)
    assert _similar(encoded.embedding, exact.embedding) > 0.999


def test_merged_tokens_are_an_option_that_results_and_stored_features_know(
    store: CaseStore, tiny: Any
) -> None:
    exact = ColipriPredictor.from_checkpoint(tiny.checkpoint)
    merging = ColipriPredictor.from_checkpoint(tiny.checkpoint, merge_tokens=0.5)
    first, second = (one.encode_case(store, "case_000") for one in (exact, merging))
    assert second.tokens.shape == first.tokens.shape
    assert np.array_equal(second.positions, first.positions)
    assert not torch.equal(second.embedding, first.embedding)
    assert _similar(second.embedding, first.embedding) > 0.9
    assert "merge_tokens" not in exact.describe()
    assert merging.describe()["merge_tokens"] == 0.5
    assert feature_key(merging).to_dict() != feature_key(exact).to_dict()
    assert merging.untrained().model.image_encoder.merged_share == 0.5
    with pytest.raises(ColipriError, match="merge_tokens: the share of tokens to merge must be"):
        ColipriPredictor.from_checkpoint(tiny.checkpoint, merge_tokens=1.0)


def test_untrained_control(predictor: ColipriPredictor, store: CaseStore) -> None:
    state = torch.random.get_rng_state()
    control, again = predictor.untrained(), predictor.untrained()
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers
    a, b = (model.encode_case(store, "case_000").embedding for model in (control, again))
    assert torch.equal(a, b)
    assert _similar(a, predictor.encode_case(store, "case_000").embedding) < 0.999
    assert "untrained" in control.source and "untrained" not in predictor.source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colipri_checkpoint_version": 7}, "has checkpoint version 7"),
        ({"orientation": "RAS"}, "images with axes RAS"),
        (
            {"network_weights": {}},
            "the weights do not fit ColipriModel: ",
        ),
        ({"tokenizer": "{}"}, "tokenizer has another format"),
        ({"plans": {"colipri_plans_version": 1}}, "lacks 'dataset_name'"),
        ({"configuration": "3d_fullres"}, "has no configuration '3d_fullres'"),
    ],
)
def test_wrong_checkpoints(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_checkpoint(tmp_path / "checkpoint.pth", **changes)
    with pytest.raises(ColipriError, match=message):
        ColipriPredictor.from_checkpoint(path)


def test_heads_of_unknown_objectives_are_left_out(tmp_path: Path) -> None:
    whole = torch.load(write_checkpoint(tmp_path / "plain.pth"), weights_only=True)
    weights = {**whole["network_weights"], "somebodys_head.weight": torch.zeros(3)}
    plain = ColipriPredictor.from_checkpoint(tmp_path / "plain.pth")
    other = ColipriPredictor.from_checkpoint(
        write_checkpoint(tmp_path / "other.pth", network_weights=weights)
    )
    assert torch.equal(plain.encode_texts(["effusion"]), other.encode_texts(["effusion"]))


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match="there is no checkpoint"):
        ColipriPredictor.from_checkpoint(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ColipriError, match="cannot be read as a checkpoint"):
        ColipriPredictor.from_checkpoint(tmp_path / "text.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(ColipriError, match="holds no image encoder that is known here"):
        ColipriPredictor.from_checkpoint(tmp_path / "other.pth")


def test_refused_settings(tiny: Any) -> None:
    with pytest.raises(ColipriError, match="multiple of the token patch"):
        ColipriPredictor.from_checkpoint(tiny.checkpoint, window=(20, 24, 24))
    with pytest.raises(ColipriError, match="three positive numbers"):
        ColipriPredictor.from_checkpoint(tiny.checkpoint, spacing=(1, 1, 0))
    with pytest.raises(ColipriError, match="there is no device 'gpu3'"):
        find_device("gpu3")
    if not torch.cuda.is_available():
        with pytest.raises(ColipriError, match="no cuda device is available here"):
            find_device("cuda")
    assert find_device("auto").type in ("cuda", "mps", "cpu")
