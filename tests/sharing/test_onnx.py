"""The image tower in onnxruntime gives torch's numbers, for any choice of tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import colipri
from colipri.architectures.model import ColipriModel
from colipri.architectures.primus import PrimusEncoder
from colipri.inference.inputs import find_images
from colipri.run import export
from colipri.sharing import onnx_export
from colipri.sharing.auto_processor import ColipriProcessor

SCAN = Path(colipri.__file__).parent / (
    "dataset_conversion/semi_synthetic_chest/scans/lidc_0314.nii.gz"
)


@pytest.mark.slow
def test_a_scan_is_encoded_as_by_torch(
    checkpoint: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "tower.onnx"
    assert export.main(["-m", str(checkpoint), "-o", str(file), "--format", "onnx"]) == 0
    assert "input: one patch of 32 x 24 x 40 voxels (fixed), 2 to 60" in capsys.readouterr().out
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = ColipriProcessor.from_pretrained(exported)(images=SCAN)
    tokens = given["body_mask"][0].nonzero().flatten()
    inputs = {"pixel_values": given["pixel_values"].numpy(), "token_ids": tokens.numpy()}
    embedding, features, _ = session.run(None, inputs)
    predictor = colipri.load(checkpoint, "cpu").predictor
    (image,) = find_images(SCAN)
    encoded = predictor.encode_file(image)
    np.testing.assert_allclose(embedding[0], encoded.embedding.numpy(), atol=onnx_export.TOLERANCE)
    np.testing.assert_allclose(features, encoded.tokens.numpy(), atol=onnx_export.TOLERANCE)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["orientation"]) == "SAR"
    assert json.loads(described["spacing"]) == [8, 8, 8]


@pytest.mark.slow
def test_a_file_that_differs_from_torch_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx_export, "TOLERANCE", 1e-12)
    file = tmp_path / "tower.onnx"
    assert export.main(["-m", str(checkpoint), "-o", str(file), "--format", "onnx"]) == 1
    assert "the ONNX file was not kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_tower_is_the_model(checkpoint: Path) -> None:
    """With registers and absolute positions too, which the tiny model does not have."""
    torch.manual_seed(0)
    encoder = PrimusEncoder(1, 36, 2, 2, num_register_tokens=3, position_grid=(2, 3, 2))
    torch.nn.init.normal_(encoder.register_tokens)
    model = ColipriModel(encoder, torch.nn.Identity(), 12, 2).eval()  # type: ignore[arg-type]
    tower = onnx_export.ImageTower(model, (16, 24, 16)).eval()
    image = torch.randn(1, 1, 16, 24, 16)
    ids = torch.tensor([1, 2, 5, 7, 11])
    with torch.no_grad():
        embedding, tokens, shared = tower(image, ids)
        expected = model.encode_image(image, ids[None])
        dense = model.project_tokens(expected.tokens)
    torch.testing.assert_close(tokens, expected.tokens[0])
    torch.testing.assert_close(embedding, expected.embedding)
    torch.testing.assert_close(shared, dense[0])
