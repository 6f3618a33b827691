"""-num_gpus with -i: several processes give the result of one, and say what is wrong once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tiny_model import copy_scans

from colipri.run import encode, zero_shot


@pytest.fixture
def scans(tiny: Any, tmp_path: Path) -> Path:
    """Three scans, and one that cannot be read."""
    return copy_scans(tiny.raw, tmp_path / "scans", "case_001b.nii.gz")


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(file, framework="numpy") as content:
        keys = list(content.keys())
        return {key: content.get_tensor(key) for key in keys}, content.metadata()


@pytest.mark.slow
def test_two_processes_encode_what_one_does(
    tiny: Any, scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans), "--dense"]
    for name, more in (("one", []), ("two", ["-num_gpus", "2"])):
        assert encode.main([*words, "-o", str(tmp_path / f"{name}.safetensors"), *more]) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1 and lines[0].startswith("colipri_encode: error: case_001b:")
    (one, about_one), (two, about_two) = (
        _read(tmp_path / f"{n}.safetensors") for n in ("one", "two")
    )
    assert about_one == about_two
    assert json.loads(about_one["names"]) == ["case_000", "case_001", "case_002"]
    assert one.keys() == two.keys()
    for key in one:  # not to the bit: other images share a batch
        np.testing.assert_allclose(one[key], two[key], atol=1e-3 if "dense" in key else 1e-6)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.slow
def test_two_processes_score_what_one_does(tiny: Any, scans: Path, tmp_path: Path) -> None:
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-i", str(scans)]
    results = []
    (scans / "case_002_0000.nii.gz").unlink()
    for more in ([], ["-num_gpus", "4"]):  # four processes, three files: one has nothing to do
        output = tmp_path / "scores.json"
        assert zero_shot.main([*words, "-f", "effusion", "-o", str(output), *more]) == 1
        results.append(json.loads(output.read_text()))
    one, four = results
    scores = [[entry.pop("scores") for entry in result["images"]] for result in results]
    logits = [[entry.pop("logits") for entry in result["images"]] for result in results]
    assert one == four and len(one["images"]) == 2 and len(one["problems"]) == 1
    for first, second in (scores, logits):
        assert [pytest.approx(entry, abs=1e-5) for entry in first] == second


@pytest.mark.slow
def test_what_is_wrong_is_said_once(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["-m", str(tiny.checkpoint), "-device", "cpu", "-num_gpus", "2"]
    output = tmp_path / "e.npz"
    assert encode.main([*words, "-i", str(empty), "-o", str(output)]) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "holds no image" in line and not output.exists()


def test_mistakes(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", str(tiny.checkpoint), "-i", str(tmp_path), "-num_gpus", "0"]
    assert zero_shot.main([*words, "-f", "effusion"]) == 1
    assert "-num_gpus must be at least 1" in capsys.readouterr().err
    data = ["-m", str(tiny.checkpoint), "-d", "950", "-num_gpus", "2"]
    assert zero_shot.main(data) == 1
    assert "-num_gpus is for -i" in capsys.readouterr().err
