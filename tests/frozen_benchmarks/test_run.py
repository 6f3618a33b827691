"""Benchmarks on converted trees of real scans, and on the tiny data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ct_rate_tree import HU, Tree, with_header
from tiny_model import DATASET, Prepared

from colipri.dataset_conversion.ct_rate.source import FINDINGS
from colipri.frozen_benchmarks.definition import FOLDER
from colipri.run.benchmark import main
from colipri.run.convert_dataset import main as convert


def _definition(path: Path, **changes: Any) -> str:
    content = json.loads((FOLDER / "ct_rate_scans.json").read_text())
    content["prompts"] = ["short"]
    content.update(changes)
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def tiny_benchmark(tmp_path: Path) -> str:
    return _definition(
        tmp_path / "tiny.json",
        name="tiny",
        findings=["Pleural effusion"],
        tasks=["zero_shot", "retrieval", "pools"],
        pools={"sizes": [2, 4, 64], "recall_at": [1], "repeats": 10},
        population={"split": "test", "filters": [], "cases": 4, "studies": 4, "patients": 4},
    )


def test_a_run_prints_ours_beside_the_published(
    tiny: Prepared, tiny_benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    words = f"{tiny_benchmark} -m {tiny.checkpoint} -d {DATASET} -device cpu --resamples 50"
    assert main([*words.split(), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["population"]["is_complete"]
    assert len(result["results"]["short"]["case_scores"]) == 4
    (clip,) = (r for r in result["published"] if r["who"] == "CT-CLIP" and "auroc" in r["metric"])
    ours = result["results"]["short"]["macro_auroc"]["value"]
    assert clip["ours"]["value"] == ours
    assert clip["like_for_like"]
    assert result["pools"]["pool_64"] is None
    assert "CT-CLIP" in printed
    assert "not like for like (CT-Net): trained on these labels, not zero-shot" in printed


def test_wrong_counts_are_an_error_and_never_compared(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _definition(tmp_path / "wrong.json", findings=["Pleural effusion"])
    words = f"{path} -m {tiny.checkpoint} -d {DATASET} -device cpu --resamples 0".split()
    assert main(words) == 1
    assert "4 cases instead of 1,564" in capsys.readouterr().err
    assert main([*words, "--allow_other_counts"]) == 0
    printed = capsys.readouterr().out
    assert "NOT the benchmark's population" in printed
    assert " yes" not in printed.split("like for like")[1]


def test_missing_labels_and_models(
    tiny: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"-m {tiny.checkpoint} -device cpu".split()
    assert main(["ct_rate_scans", "-d", DATASET, *model]) == 1
    assert "no labels for 17 of the 18 findings" in capsys.readouterr().err
    assert main(["ct_rate_scans"]) == 1
    assert "give a model" in capsys.readouterr().err
    assert main(["ct_rate_scans", *model]) == 1
    assert "colipri_convert_dataset ct_rate --with_no_chest" in capsys.readouterr().err
    assert main([]) == 1
    assert "--list" in capsys.readouterr().err


def test_list_show_and_dry_run(tiny: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "ct_rate_volumes" in capsys.readouterr().out
    assert main(["merlin", "--show"]) == 0
    assert "colipri_convert_dataset merlin -i SOURCE" in capsys.readouterr().out
    words = f"ct_rate_volumes -m {tiny.checkpoint} -device cpu --dry_run".split()
    assert main(words) == 0
    assert "3,039 scans" in capsys.readouterr().out
    assert main(f"merlin -m {tiny.checkpoint} -device cpu --dry_run".split()) == 1
    assert "states no number of scans" in capsys.readouterr().err


def test_features_replace_encoding(
    tiny: Prepared, tiny_benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from colipri.run.encode import main as encode

    folder = tmp_path / "features"
    model = f"-m {tiny.checkpoint} -d {DATASET} -device cpu"
    assert encode(f"{model} --split all -o {folder} --tokens 1".split()) == 0
    plain, cached = tmp_path / "plain.json", tmp_path / "cached.json"
    words = [tiny_benchmark, *model.split(), "--resamples", "0"]
    assert main([*words, "-o", str(plain)]) == 0
    assert main([*words, "-o", str(cached), "--features", str(folder)]) == 0
    capsys.readouterr()
    first, second = (json.loads(path.read_text()) for path in (plain, cached))
    for one, other in zip(
        first["results"]["short"]["case_scores"],
        second["results"]["short"]["case_scores"],
        strict=True,
    ):
        logits = [entry["logits"]["Pleural effusion"] for entry in (one, other)]
        assert logits[0] == pytest.approx(logits[1], abs=1e-4)


@pytest.mark.slow
def test_the_populations_of_ct_rate_on_a_converted_tree(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Two reconstructions, a repeated text, and a head CT: three populations of one tree."""
    raw = tmp_path / "raw"
    raw.mkdir()
    monkeypatch.setenv("colipri_raw", str(raw))
    tree = Tree(tmp_path / "in")
    tree.add("train_1_a_1", findings="Nodule.")
    texts = {
        "valid_1_a": "Left effusion.",
        "valid_2_a": "No effusion.",
        "valid_3_a": "No effusion.",
    }
    for number, (study, text) in enumerate(texts.items()):
        for reconstruction in (1, 2):
            shifted = HU[: len(HU) - number, :, :]
            tree.add(
                f"{study}_{reconstruction}",
                findings=text,
                image=with_header(shifted),
                XYSpacing=f"[{3 - reconstruction}, {3 - reconstruction}]",
            )
    tree.no_chest["valid"] = ["valid_3_a_1.nii.gz", "valid_3_a_2.nii.gz"]
    source = tree.write()
    counts = {
        "volumes": ("--with_no_chest", [], {"cases": 6, "studies": 3, "patients": 3}),
        "scans": (
            "--with_no_chest", ["first_of_study"], {"cases": 3, "studies": 3, "patients": 3},
        ),
        "colipri": ("--evaluation_subset", [], {"cases": 2, "studies": 2, "patients": 2}),
    }  # fmt: skip
    for number, (name, (option, filters, expected)) in enumerate(counts.items(), start=300):
        words = f"ct_rate -i {source} -d {number} -n CTRATE{name} -np 1 {option}"
        assert convert(words.split()) == 0
        path = _definition(
            tmp_path / f"{name}.json",
            findings=list(FINDINGS),
            population={"split": "test", "filters": filters, **expected},
        )
        output = tmp_path / f"{name}_result.json"
        model = f"-m {tiny.checkpoint} -d {number} -device cpu --resamples 0 --no_checks"
        assert main([path, *model.split(), "-o", str(output)]) == 0, capsys.readouterr().err
        result = json.loads(output.read_text())
        assert result["population"]["found"] == expected
        cases = [entry["case"] for entry in result["results"]["short"]["case_scores"]]
        if name == "scans":
            assert cases == ["valid_1_a_1", "valid_2_a_1", "valid_3_a_1"]
        if name == "colipri":
            assert cases == ["valid_1_a_2", "valid_2_a_2"]  # the smaller pixels
