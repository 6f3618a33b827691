"""colipri_encode -d as a user types it, and what it says beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import run
from tiny_dataset import PLANS
from tiny_model import DATASET

from colipri.features.sizes import feature_sizes, show_bytes, show_flops, show_hours
from colipri.features.store import FeatureStore
from colipri.inference.predictor import ColipriPredictor
from colipri.run.encode import main as encode


def test_a_data_set(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "features"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "-o", str(folder), "--tokens", "all"]
    assert encode([*arguments, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "12 scans, about" in printed and "before compression" in printed
    assert not folder.exists()
    assert encode(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{folder} holds the features of 12 scans" in printed and "colipri_probe" in printed
    assert len(FeatureStore(folder).identifiers()) == 12


def test_a_split(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "-o", str(folder), "--tokens", "1"]
    assert encode([*arguments, "--split", "test"]) == 0
    assert FeatureStore(folder).identifiers() == ["case_002", "case_003", "case_006", "case_007"]


@pytest.mark.slow  # three processes that import torch
def test_several_processes(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "-o", str(folder), "-num_gpus", "2"]
    done = run("colipri_encode", *arguments, "-device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(FeatureStore(folder).identifiers()) == 12
    assert len(list(folder.glob("shard-*"))) == 2


def test_a_damaged_image_is_named(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(tiny.raw, tmp_path / "raw")
    monkeypatch.setenv("colipri_raw", str(tmp_path / "raw"))
    damaged = tmp_path / "raw" / DATASET / "imagesTr" / "case_003_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    folder = tmp_path / "features"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "-o", str(folder), "--source", "raw"]
    assert encode(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("colipri_encode: error: case_003:") and "case_003_0000.nii.gz" in line
    assert len(FeatureStore(folder).identifiers()) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either -i (images) or -d"),
        (["-i", "x", "-d", "950"], "use them without -i"),
        (["-d", "950", "--tokens", "100"], "a cube number"),
        (["-d", "950", "--dense"], "--dense belongs to -i"),
        (["-d", "950", "-num_gpus", "0"], "-num_gpus must be at least 1"),
        (["-d", "950", "--part_id", "1"], "--part_id must be 0 to 0"),
        (["-d", "999"], "999"),
        (["-d", "950", "--dry_run", "0"], "number of scans above 0"),
    ],
)
def test_mistakes(
    tiny: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    output = str(tmp_path / "features")
    assert encode(["-m", str(tiny.checkpoint), "-o", output, *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "features").exists()


def test_sizes_by_hand(tiny: Any) -> None:
    """Width 36: 72 bytes a token and 10 for its place; pooled 32 + 36 + 36 + 23 numbers."""
    configuration = ColipriPredictor.from_checkpoint(tiny.checkpoint).configuration
    few = feature_sizes(configuration, 1000, 8)
    assert few.bytes_per_case == 8 * (72 + 10) + 4 * (32 + 36 + 36 + 23)
    assert few.total_bytes == 1000 * few.bytes_per_case
    whole = feature_sizes(configuration, 1000, 0)
    assert whole.tokens_per_case > 8 and whole.flops_per_case == few.flops_per_case
    hours = few.hours()["A100"]
    assert hours == pytest.approx(1000 * few.flops_per_case / (312e12 * 0.35) / 3600)
    patch = tuple(configuration.patch_size)
    doubled = [2 * patch[0], *patch[1:]]
    windows = feature_sizes(configuration, 1000, 0, patch, [doubled, list(patch)])
    assert windows.windows_per_case == (2 + 1) / 2


def test_on_paper(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["-d", "101", "-o", str(tmp_path / "f"), "--dry_run", "50188"]
    assert encode(["-m", f"{PLANS}:3d_lowres", *arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("50,188 scans") and "A100" in printed
    assert encode(["-m", f"{PLANS}:nothing", *arguments]) == 1


def test_units() -> None:
    assert [show_bytes(n) for n in (12, 6_500, 8.8e9, 5.45e11)] == [
        "12 B",
        "6.5 kB",
        "8.8 GB",
        "545 GB",
    ]
    assert [show_hours(h) for h in (40.2, 0.05, 0.001)] == ["40.2 h", "3 min", "3.6 s"]
    assert [show_flops(n) for n in (5e8, 1.2e10, 1.45e13)] == [
        "500 MFLOP",
        "12 GFLOP",
        "14.5 TFLOP",
    ]
