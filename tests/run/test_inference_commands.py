"""colipri_retrieve, colipri_encode and colipri_report as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tiny_model import DATASET

from colipri.run.encode import main as encode
from colipri.run.report import main as report
from colipri.run.retrieve import main as retrieve
from colipri.run.tables import format_interval, format_table


def test_retrieve_measures(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "retrieval_test.json"
    arguments = ["-m", str(tiny.checkpoint), "-d", "950", "--resamples", "20", "-o", str(output)]
    assert retrieve([*arguments, "--control_untrained"]) == 0
    result = json.loads(output.read_text())
    for direction in ("text_to_image", "image_to_text"):
        assert {"value", "low", "high"} == set(result[direction]["recall_at_5"])
    printed = capsys.readouterr().out
    assert "report -> image: 4 queries, 4 candidates" in printed and "untrained" in printed
    assert "Recall@1" in printed and "Recall@5" not in printed  # 5 of 4 candidates says nothing


def test_retrieve_searches(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found.json"
    arguments = ["-m", str(tiny.checkpoint), "-q", "large effusion", "gas", "--top", "2"]
    assert retrieve([*arguments, "-d", "950", "--split", "train", "-o", str(output)]) == 0
    queries = json.loads(output.read_text())["queries"]
    assert [query["text"] for query in queries] == ["large effusion", "gas"]
    assert all(len(query["found"]) == 2 and query["searched"] == 6 for query in queries)
    assert '"gas" in 6 scans' in capsys.readouterr().out
    assert retrieve([*arguments, "-i", str(tiny.raw / DATASET / "imagesTr")]) == 0
    assert '"gas" in 12 scans' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-d", "950", "-i", "x"],
            "give -d (a data set), -i",
        ),
        (["-i", "x"], "-i needs a text to look for"),
        (["-d", "950", "-q", " "], "an empty text cannot be encoded"),
        (["-d", "950", "-q", "gas", "--top", "0"], "--top must be at least 1"),
        (["-d", "950", "--split", "val", "-o", "x.csv"], "must end in .json"),
    ],
)
def test_retrieve_mistakes(
    tiny: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert retrieve(["-m", str(tiny.checkpoint), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_encode_to_both_formats(tiny: Any, tmp_path: Path) -> None:
    images = tiny.raw / DATASET / "imagesTr"
    safe, zipped = tmp_path / "a.safetensors", tmp_path / "a.npz"
    for output in (safe, zipped):
        assert encode(["-m", str(tiny.checkpoint), "-i", str(images), "-o", str(output)]) == 0
    with safe_open(safe, "numpy") as file:
        names = json.loads(file.metadata()["names"])
        embeddings = file.get_tensor("embeddings")
        assert json.loads(file.metadata()["model"])["trained_on"] == DATASET
    with np.load(zipped, allow_pickle=False) as file:
        assert file["names"].tolist() == names
        assert np.array_equal(file["embeddings"], embeddings)
    assert names == [f"case_{number:03d}" for number in range(12)]
    assert embeddings.shape == (12, 32)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(12), abs=1e-5)


@pytest.mark.parametrize(("kind", "width"), [("shared", 32), ("encoder", 36)])
def test_encode_dense(tiny: Any, tmp_path: Path, kind: str, width: int) -> None:
    image = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    output = tmp_path / "dense.npz"
    arguments = ["-m", str(tiny.checkpoint), "-i", str(image), "-o", str(output)]
    assert encode([*arguments, "--window", "--dense", kind]) == 0
    with np.load(output, allow_pickle=False) as file:
        dense, kept = file["case_001/dense"], file["case_001/kept"].astype(bool)
        affine = file["case_001/affine"]
    assert dense.shape == (*kept.shape, width) and dense.dtype == np.float16
    assert (np.abs(dense[kept]).sum(axis=1) > 0).all() and not dense[~kept].any()
    # neighbouring tokens are 64 mm apart along superior, anterior, right
    steps = affine[:3, :3]
    assert steps == pytest.approx(np.array([[0, 0, 64.0], [0, 64.0, 0], [64.0, 0, 0]]), rel=0.05)
    centre = affine @ [*(np.array(kept.shape) - 1) / 2, 1]
    import SimpleITK

    scan = SimpleITK.ReadImage(str(image))
    middle = scan.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in scan.GetSize()])
    expected = np.array([-middle[0], -middle[1], middle[2]])
    assert np.abs(centre[:3] - expected).max() < 17  # body and volume are centred within two voxels


def test_encode_mistakes(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz")
    for arguments, message in (
        (["-i", image, "-o", "x.csv"], "must end in .safetensors or .npz"),
        (["-i", str(tmp_path), "-o", str(tmp_path / "x.npz")], "holds no image"),
        (["-i", image, "-o", str(tmp_path / "x.npz"), "--spacing", "1", "1", "0"], "positive"),
    ):
        assert encode(["-m", str(tiny.checkpoint), *arguments]) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_encode_leaves_a_broken_image_out(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.raw / DATASET / "imagesTr" / "case_001_0000.nii.gz"
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(source, folder / "good.nii.gz")
    (folder / "bad.mha").write_text("nothing")
    output = tmp_path / "x.npz"
    assert encode(["-m", str(tiny.checkpoint), "-i", str(folder), "-o", str(output)]) == 1
    assert "bad.mha" in capsys.readouterr().err
    with np.load(output, allow_pickle=False) as file:
        assert file["names"].tolist() == ["good"]


def test_report(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fold = tmp_path / "ColipriTrainer_C__colipriPlans__3d_lowres" / "fold_0"
    fold.mkdir(parents=True)
    shutil.copy(tiny.preprocessed / DATASET / "colipriPlans.json", fold / "plans.json")
    assert report([str(fold)]) == 0
    without = (fold / "report.html").read_text()
    assert "data:image/png" not in without
    capsys.readouterr()
    assert report([str(fold), "--pictures"]) == 1
    assert "--pictures needs a checkpoint" in capsys.readouterr().err
    shutil.copy(tiny.checkpoint, fold / "checkpoint_best.pth")
    output = tmp_path / "page.html"
    assert report([str(fold), "--pictures", "-o", str(output), "--title", "A <title>"]) == 0
    page = output.read_text()
    assert page.count("data:image/png") == 6 + 4  # six training scans, one finding in two planes
    assert "A &lt;title&gt;" in page and "Unseen scans" in page
    assert "There is a nodule of" not in page  # nobody's report, unless asked for
    assert report([str(fold), "--pictures", "--show_reports"]) == 0
    assert "There is a nodule of" in (fold / "report.html").read_text()


def test_report_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(tmp_path / "missing")], "there is no folder"),
        ([str(tmp_path)], "holds no results"),
        ([str(tmp_path), "-o", str(tmp_path / "x.pdf")], "must end in .html"),
        ([str(tmp_path), "--show_reports"], "needs --pictures"),
    ):
        assert report(arguments) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


def test_tables() -> None:
    text = format_table(["name", "x"], [["a", "1.0"], ["longer", "10.0"]])
    assert text.splitlines() == ["name       x", "------------", "a        1.0", "longer  10.0"]
    assert format_interval({"value": 0.5, "low": 0.4, "high": 0.6}, 1) == "0.5 [0.4, 0.6]"
    assert format_interval({"value": None, "low": None, "high": None}) == "-"
