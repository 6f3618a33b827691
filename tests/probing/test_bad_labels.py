"""Label columns that cannot be learned from: each ends in one line, and leaves nothing behind."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import DATASET

from colipri.probing import probe as probing
from colipri.run.classify import main as classify
from colipri.run.probe import main as probe

FINDING = "Pleural effusion"


@pytest.fixture
def relabelled(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[int, dict[str, str]], str]], list[str]]:
    """Write another column of labels and return the arguments of a probe on the raw images."""

    def write(label: Callable[[int, dict[str, str]], str]) -> list[str]:
        folder = tmp_path / "raw" / DATASET
        shutil.copytree(tiny.raw / DATASET, folder)
        with (folder / "cases.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            row[FINDING] = label(number, row)
        with (folder / "cases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        monkeypatch.setenv("colipri_raw", str(tmp_path / "raw"))
        run = tmp_path / "run"
        run.mkdir()
        shutil.copy(tiny.checkpoint, run / "checkpoint_best.pth")
        model = ["-m", str(run / "checkpoint_best.pth"), "-d", "950", "--source", "raw"]
        return [*model, "--resamples", "20", "--methods", "logistic", "knn", "-device", "cpu"]

    return write


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda number, row: ("severe", "0")[number % 2], "severe"),
        (lambda number, row: ("0", "2")[number % 2], "2"),
        (lambda number, row: "1", "no finding can be learned"),
        (lambda number, row: "", "0 training patients have it and 0 do not"),
        (lambda number, row: str(int(number == 0)), "1 training patients have it"),
    ],
    ids=["text", "a grade", "one class", "empty", "one positive"],
)
def test_one_line_each(
    relabelled: Any, capsys: pytest.CaptureFixture[str], label: Any, message: str
) -> None:
    arguments = relabelled(label)
    assert probe(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line, line
    assert [path.name for path in Path(arguments[1]).parent.iterdir()] == ["checkpoint_best.pth"]


def test_three_positives_are_learned_and_one_class_is_undefined(
    relabelled: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three positives in training, none among the evaluated: a head, and no figure made up."""
    positives = {"case_000", "case_004", "case_008"}
    arguments = relabelled(lambda number, row: str(int(row["case"] in positives)))
    assert probe(arguments) == 0
    printed = capsys.readouterr().out
    assert f"undefined (one class only in test): {FINDING}" in printed
    result = json.loads((Path(arguments[1]).parent / f"probe_{DATASET}_test.json").read_text())
    entry = result["methods"]["logistic"]["macro_auroc"]
    assert entry["value"] is None and entry["findings"] == 0


def test_no_memory_is_one_line(
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*words: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(probing, "train_method", full)
    checkpoint = tmp_path / "checkpoint_best.pth"
    shutil.copy(tiny.checkpoint, checkpoint)
    assert probe(["-m", str(checkpoint), "-d", "950", "-device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "not enough memory on the device" in line and "unexpected" not in line


def test_a_head_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "head.safetensors").write_bytes(b"no head")
    output = tmp_path / "findings.csv"
    words = ["-m", str(tmp_path / "head.safetensors"), "-i", str(tmp_path), "-o", str(output)]
    assert classify(words) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not output.exists()
