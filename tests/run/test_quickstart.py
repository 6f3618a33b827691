"""The quick start's steps that need no training: what a second run does again, and what not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colipri.run import quickstart as module
from colipri.run.quickstart import Quickstart, build_parser


def test_only_missing_results_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart = Quickstart(build_parser().parse_args(["-o", str(tmp_path / "a folder")]))
    quickstart.model_folder.mkdir(parents=True)
    checkpoint = quickstart.model_folder / "checkpoint_best.pth"
    checkpoint.touch()
    calls: list[str] = []
    monkeypatch.setattr(quickstart, "command", lambda title, name, text: calls.append(text))
    monkeypatch.setattr(quickstart, "say", lambda text: None)

    def evaluate() -> int:
        calls.clear()
        quickstart.evaluate("title", "colipri_zero_shot", checkpoint, "zero_shot_trained")
        return len(calls)

    assert evaluate() == 1
    words = module.shlex.split(calls[0])
    assert words[words.index("-o") + 1] == str(quickstart.result("zero_shot_trained"))
    assert words[words.index("-m") + 1] == str(checkpoint)
    quickstart.result("zero_shot_trained").touch()
    assert evaluate() == 0
    later = checkpoint.stat().st_mtime + 60
    os.utime(checkpoint, (later, later))  # trained again: the result is of another model
    assert evaluate() == 1
