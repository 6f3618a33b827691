"""Too little memory: fewer crops at once, then smaller windows with a message, or a refusal."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import DATASET

import colipri
from colipri.architectures.model import ColipriModel
from colipri.common.errors import ColipriError
from colipri.inference.inputs import find_images
from colipri.inference.memory_fallback import halved, is_out_of_memory
from colipri.inference.predictor import ColipriPredictor
from colipri.run import encode, index

NO_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.fixture
def predictor(tiny: Any) -> ColipriPredictor:
    return ColipriPredictor.from_checkpoint(tiny.checkpoint)


def _limit(predictor: Any, voxels: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let the model raise torch's own error for larger batches; return the shapes that it got."""
    real, seen = predictor.model.encode_image, []

    def encode_image(pixels: torch.Tensor, *rest: Any) -> Any:
        if pixels.numel() > voxels:
            raise torch.OutOfMemoryError(NO_MEMORY)
        seen.append(tuple(pixels.shape))
        return real(pixels, *rest)

    monkeypatch.setattr(predictor.model, "encode_image", encode_image)
    return seen


def _images(tiny: Any) -> list[Any]:
    return find_images(tiny.raw / DATASET / "imagesTr")


def test_first_fewer_at_once_which_changes_nothing(
    tiny: Any, predictor: ColipriPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = _images(tiny)[:4]
    expected = [outcome[1].embedding for outcome in predictor.encode_files(images)]
    predictor.memory.allowed = True
    seen = _limit(predictor, 32 * 24 * 40, monkeypatch)
    found = [outcome[1].embedding for outcome in predictor.encode_files(images)]
    assert {shape[0] for shape in seen} == {1} and predictor.memory.window is None
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [None, (32, 24, 40)])
def test_then_smaller_windows_with_a_message(
    tiny: Any,
    predictor: ColipriPredictor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    window: Any,
) -> None:
    predictor.window = window
    (image, *_) = _images(tiny)
    whole = predictor.encode_file(image)
    predictor.memory.allowed = True
    _limit(predictor, 16 * 24 * 24, monkeypatch)
    with caplog.at_level(logging.WARNING, "colipri"):
        found = predictor.encode_file(image)
    assert "Not enough memory for 32 x 24 x 40 voxels at once: continuing in windows of" in (
        caplog.text
    )
    assert predictor.memory.window == (16, 24, 24)
    assert predictor.describe()["smaller_windows"] == [16, 24, 24]
    assert np.array_equal(found.positions, whole.positions)  # the same place, the same tokens
    assert (found.grid, found.start) == (whole.grid, whole.start)
    cosine = float(found.embedding @ whole.embedding)
    assert 0.5 < cosine < 1


def test_where_results_must_be_alike_it_is_refused(
    tiny: Any, predictor: ColipriPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(predictor, 1, monkeypatch)
    (image, *_) = _images(tiny)
    with pytest.raises(ColipriError, match=r"not enough memory .*--window"):
        predictor.encode_file(image)
    predictor.memory.allowed = True
    with pytest.raises(ColipriError, match="even for windows of 16 x 16 x 16 voxels"):
        predictor.encode_file(image)


def test_other_errors_are_not_taken_for_it(
    tiny: Any, predictor: ColipriPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    predictor.memory.allowed = True
    monkeypatch.setattr(predictor.model, "encode_image", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        predictor.encode_file(_images(tiny)[0])


def test_commands_on_images_continue_and_indexes_do_not(
    tiny: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ColipriModel.encode_image

    def encode_image(self: Any, pixels: torch.Tensor, *rest: Any) -> Any:
        if pixels.numel() > 16 * 24 * 40:
            raise torch.OutOfMemoryError(NO_MEMORY)
        return real(self, pixels, *rest)

    monkeypatch.setattr(ColipriModel, "encode_image", encode_image)
    scan = _images(tiny)[0].files[0]
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scan)]
    assert encode.main([*words, "-o", str(tmp_path / "a.npz")]) == 0
    assert "continuing in windows of 32 x 24 x 24" in capsys.readouterr().out
    assert colipri.load(tiny.checkpoint, "cpu").encode(scan)
    assert index.main([*words, "-o", str(tmp_path / "index")]) == 1
    assert "not enough memory on the device" in capsys.readouterr().err


def test_what_is_halved_and_what_counts_as_out_of_memory() -> None:
    assert halved((192, 192, 192), (8, 8, 8)) == (96, 192, 192)
    assert halved((24, 16, 16), (8, 8, 8)) == (16, 16, 16)
    assert halved((16, 16, 16), (8, 8, 8)) is None
    cpu = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    for error in (torch.OutOfMemoryError(NO_MEMORY), RuntimeError(cpu), MemoryError()):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes")) and not is_out_of_memory(OSError("memory"))
