"""An encoder without texts is probed as any other, without zero-shot beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_primus_s

from colipri.checkpoints.checkpoint_file import load_checkpoint
from colipri.run import import_model, index, probe, retrieve
from colipri.transfer.export import export_nnssl


def test_encoder_of_nnssl_probe_and_search(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, tower = tmp_path / "mae.pth", tmp_path / "tower"
    export_nnssl(load_checkpoint(write_primus_s(tmp_path / "best.pth")), file)
    content = torch.load(file, weights_only=True)
    (images,) = content["nnssl_adaptation_plan"]["pretrain_plan"]["configurations"].values()
    images["normalization_schemes"] = ["ZScoreNormalization"]  # as nnssl trains
    torch.save(content, file)
    assert import_model.main(["-i", str(file), "-o", str(tower)]) == 0
    words = ["-m", str(tower), "-device", "cpu"]
    result = tmp_path / "probe.json"
    methods = ["--methods", "knn", "logistic", "--split", "val", "--resamples", "20"]
    assert probe.main([*words, "-d", "950", *methods, "-o", str(result)]) == 0
    assert "No zero-shot beside the heads" in capsys.readouterr().out
    assert set(json.loads(result.read_text())["methods"]) == {"knn", "logistic"}

    scan = str(sorted((tiny.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))[0])
    assert index.main([*words, "-i", scan, "-o", str(tmp_path / "index")]) == 0
    assert "-q SCAN.nii.gz" in capsys.readouterr().out
    assert retrieve.main([*words, "--index", str(tmp_path / "index"), "-q", scan]) == 0
    assert retrieve.main([*words, "--index", str(tmp_path / "index"), "-q", "effusion"]) == 1
    assert "has no text encoder" in " ".join(capsys.readouterr().err.split())
