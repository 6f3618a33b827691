"""The names of the released package: arguments, shapes, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released_files import HEADS, WIDTH, write_released

import colipri
from colipri.common.errors import ColipriError
from colipri.released.scan import ScalarImage
from colipri.released.settings import read_settings
from colipri.released.transforms import crop_or_pad, resample
from colipri.run import import_model

GOLDEN = {
    "origin": [-261.5, -267.0, 73.5],
    "values": [
        *(-0.567, -0.793, -0.736, -0.732, 0.049, 0.051, -0.033, -0.83),
        *(0.012, 0.034, 0.043, 0.063, 0.054, 0.038, 0.072, 0.022),
    ],
}
SIZES = {
    "image_embed_dim": WIDTH,
    "projection_dim": 24,
    "model.image_encoder.backbone.eva_depth": 1,
    "model.image_encoder.backbone.eva_numheads": HEADS,
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random released weights and their text folder."""
    return write_released(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def pair(released: Path) -> tuple[Any, Any]:
    """Model and processor of a 16^3 patch."""
    text = released.parent / "text"
    model = colipri.get_model(
        released,
        **{**SIZES, "model.text_encoder.backbone.pretrained_model_name_or_path": text},
    )
    processor = colipri.get_processor(
        **{"input_size": 16, "processor.tokenizer.pretrained_model_name_or_path": text}
    )
    return model, processor


def test_the_card_s_example(pair: tuple[Any, Any]) -> None:
    model, processor = pair
    image = colipri.load_sample_ct()
    assert "orientation: LPS+" in repr(image)
    assert int(image.data.max()) <= 1000
    prompts = ["No lung nodules present", "Lung nodules present"]
    pipeline = colipri.ZeroShotImageClassificationPipeline(model, processor)
    scores = pipeline(image, prompts)
    assert [entry["label"] for entry in scores] == prompts
    assert sum(entry["score"] for entry in scores) == pytest.approx(1)
    assert pipeline([image, image], prompts) == [scores, scores]
    (preprocessed,) = processor.process_images(image)
    assert preprocessed.shape == (1, 16, 16, 16)
    assert preprocessed.spacing == (2.0, 2.0, 2.0)
    assert preprocessed.orientation == ("R", "A", "S")
    batch = processor.to_images_batch([preprocessed])
    with torch.no_grad():
        assert model.encode_image(batch).shape == (1, WIDTH, 2, 2, 2)
        assert model.encode_image(batch, project=True).shape == (1, 24, 2, 2, 2)
        assert model.encode_image(batch, pool=True, project=True).shape == (1, 24)


def test_the_values_that_torchio_makes_of_the_sample() -> None:
    """Written down from the released package 0.1.3 (torchio 1.2.1) on the same file."""
    processor = colipri.get_processor(image_only=True, input_size=64)
    (image,) = processor.process_images(colipri.load_sample_ct(clip=False))
    assert image.data.dtype == torch.float32
    np.testing.assert_allclose(image.affine[:3, 3], GOLDEN["origin"], atol=1e-4)
    found = image.data[0, ::16, 32, ::16].flatten().numpy()
    np.testing.assert_allclose(found, GOLDEN["values"], atol=1e-6)


def test_windows_side_by_side_are_those_of_whole_tokens(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    image = torch.randn(1, 1, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.encode_image(image, window_size=(16, 16, 16))
        first = model.encode_image(image[:, :, :16])
        last = model.encode_image(image[:, :, 8:])
    torch.testing.assert_close(found[:, :, :1], first[:, :, :1])
    torch.testing.assert_close(found[:, :, 1:], last)  # the later window counts
    with pytest.raises(ValueError, match="larger than the image"):
        model.encode_image(image, window_size=32)


def test_an_imported_model_needs_no_arguments(
    released: Path, pair: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = str(tmp_path / "model")
    text = str(released.parent / "text")
    assert import_model.main(["-i", str(released), "--text_encoder", text, "-o", target]) == 0
    monkeypatch.setenv("colipri_released", target)
    model, processor = colipri.get_model(**SIZES), colipri.get_processor(input_size=16)
    image = torch.randn(1, 1, 16, 24, 8, generator=torch.Generator().manual_seed(0))
    ids, mask = processor.process_text(["No effusion.", "Effusion"])
    with torch.no_grad():
        for ours, theirs in (
            (model.encode_image(image), pair[0].encode_image(image)),
            (model.encode_text(ids, mask), pair[0].encode_text(ids, mask)),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert float(model.softmax_temperature) == pytest.approx(0.07)


def test_image_only(released: Path) -> None:
    model = colipri.get_model(released, image_only=True, **SIZES)
    assert model.text_encoder is None
    with pytest.raises(ColipriError, match="for images alone"):
        model.encode_text(torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(ColipriError, match="for images alone"):
        colipri.get_processor(image_only=True).process_text("effusion")
    with pytest.raises(NotImplementedError, match="project=True"):
        model.encode_image(torch.zeros(1, 1, 8, 8, 8), pool=True)


def test_prompts_empty_and_of_ten_thousand_words(pair: tuple[Any, Any]) -> None:
    _, processor = pair
    for empty in ("", "  ", [], ["effusion", ""]):
        with pytest.raises(ColipriError, match="empty text"):
            processor.process_text(empty)
    ids, mask = processor.process_text("effusion " * 10_000)
    assert ids.shape == mask.shape == (1, 512)
    assert int(mask.sum()) == 512


def test_settings_are_checked(tmp_path: Path) -> None:
    assert read_settings("model", None, {"input_size": 96})["image_encoder"]["backbone"][
        "input_shape"
    ] == [96, 96, 96]
    with pytest.raises(ColipriError, match=r"no setting model\.image_encoder\.depth"):
        colipri.get_model(pretrained=False, **{"model.image_encoder.depth": 3})
    file = tmp_path / "model.yaml"
    file.write_text("_target_: os.system\ntemperature: 0.5\n")  # named classes are not imported
    assert read_settings("model", file, {})["temperature"] == 0.5
    file.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ColipriError, match="cannot be read"):
        read_settings("model", file, {})


def test_padding_is_the_larger_half_in_front() -> None:
    values = np.arange(3, dtype=np.float32).reshape(3, 1, 1) + 5
    padded, affine = crop_or_pad(values, np.eye(4), (6, 1, 1), "minimum")
    assert padded.ravel().tolist() == [5, 5, 5, 6, 7, 5]
    assert affine[0, 3] == -2
    cropped, affine = crop_or_pad(padded, affine, (3, 1, 1), 0)
    assert cropped.ravel().tolist() == [5, 6, 7]
    assert affine[0, 3] == 0


def test_resampling_keeps_the_centre_and_the_type() -> None:
    array = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    resampled, moved = resample(array, affine, 2)
    assert resampled.shape == (15, 15, 15) and resampled.dtype == np.int16
    np.testing.assert_allclose(moved @ [7, 7, 7, 1], affine @ [4.5, 4.5, 4.5, 1])
    with pytest.raises(ColipriError, match="thinner than a voxel"):
        resample(array, np.diag([3.0, 3.0, 0.1, 1.0]), 2)


def test_scans_need_one_channel(pair: tuple[Any, Any]) -> None:
    two = ScalarImage(tensor=torch.zeros(2, 4, 4, 4), affine=np.eye(4))
    with pytest.raises(ColipriError, match=r"must have the shape \(1, W, H, D\)"):
        pair[1].process_images(two)


def test_the_package_still_imports_fast() -> None:
    code = "import sys, colipri; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
