"""The next command that a command prints can be pasted, does something new, and works."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import DATASET

from colipri.run.next_command import command_line
from colipri.run.report import main as report
from colipri.run.retrieve import main as retrieve
from colipri.run.train import main as train
from colipri.run.zero_shot import main as zero_shot

MAINS = {"colipri_zero_shot": zero_shot, "colipri_retrieve": retrieve, "colipri_report": report}


def next_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Words of the one next command that was printed."""
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("Next: "))
    return shlex.split(line.removeprefix("Next: "))


def test_paths_with_spaces_are_quoted() -> None:
    words = ["colipri_report", Path("/a folder/it's")]
    assert shlex.split(command_line(*words)) == [str(word) for word in words]


def test_from_training_to_the_page(
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each printed command is pasted; all results end on the page, which comes last."""
    results = tmp_path / "my results"
    monkeypatch.setenv("colipri_results", str(results))
    monkeypatch.chdir(tmp_path)
    short = ["-device", "cpu", "-num_workers", "0", "--epochs", "1", "--iterations_per_epoch", "1"]
    assert train(["950", "3d_lowres", "0", "-tr", "ColipriTrainer_C", *short]) == 0
    done = []
    words = next_command(capsys)
    while words[0] != "colipri_report":
        assert words[0] not in done, "what was just done is suggested again"
        done.append(words[0])
        extra = ["-device", "cpu", "--resamples", "20"]
        assert MAINS[words[0]]([*words[1:], *extra]) == 0
        words = next_command(capsys)
    assert done == ["colipri_zero_shot", "colipri_retrieve"]
    (fold,) = results.glob("*/*/fold_0")
    assert words == ["colipri_report", str(fold), "--pictures"]
    assert report([*words[1:], "-device", "cpu"]) == 0
    page = (fold / "report.html").read_text(encoding="utf-8")
    assert "Zero-shot macro AUROC" in page and "Report to image" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my results"]

    arguments = ["950", "3d_lowres", "0", "-tr", "ColipriTrainer_C", "-device", "cpu", "--val"]
    assert train(arguments) == 0
    assert next_command(capsys)[0] == "colipri_report"
    final = (fold / "validation" / "summary.json").read_bytes()
    assert train([*arguments, "--val_best"]) == 0
    assert (fold / "validation" / "summary.json").read_bytes() == final
    assert json.loads((fold / "validation_best" / "summary.json").read_text())["cases"] == 2
    assert train([*arguments[:-1], "--val_best", "--c"]) == 1
    assert "add --val" in capsys.readouterr().err


def test_a_result_elsewhere_is_told_how_to_reach_the_page(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = tmp_path / "run"
    fold.mkdir()
    shutil.copy(tiny.checkpoint, fold / "checkpoint_best.pth")
    arguments = ["-m", str(fold / "checkpoint_best.pth"), "-d", DATASET, "--resamples", "20"]
    assert retrieve([*arguments, "-o", str(tmp_path / "elsewhere.json")]) == 0
    printed = capsys.readouterr().out
    assert f"With -o {fold / 'retrieval_test.json'}, colipri_report shows" in printed
    assert f"Next: colipri_zero_shot -m {fold / 'checkpoint_best.pth'}" in printed
