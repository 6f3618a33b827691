"""The pages about using a model: their commands and Python code run as printed, on a tiny model."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from documentation.pages import DOCUMENTATION, code_blocks
from tiny_model import tiny, tiny_folders

import colipri

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

__all__ = ["tiny", "tiny_folders"]

ROOT = DOCUMENTATION.parent
# What stands for a word of the pages here; 901 is the quick start's data set.
WORDS = {"901": "950", "split=test": "split=val", "test": "val"}
# What needs a hub, an optional package, or does not end
LEFT_OUT = ("hf:", "--push_to_hub", "--format", "colipri_serve", "docker ", "--text_encoder")


@pytest.fixture
def reader(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model and the scan that the pages name."""
    (tmp_path / "fold_0").mkdir()
    shutil.copy(tiny.checkpoint, tmp_path / "fold_0" / "checkpoint_best.pth")
    (tmp_path / "MODEL").symlink_to("fold_0")
    scans = sorted((tiny.raw / "Dataset950_Tiny" / "imagesTr").glob("*.nii.gz"))
    shutil.copy(scans[0], tmp_path / "scan.nii.gz")
    (tmp_path / "SCANS").mkdir()
    shutil.copy(scans[1], tmp_path / "SCANS" / "a.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _commands(page: str) -> list[list[str]]:
    text = (DOCUMENTATION / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ |    )(colipri_\w+ .*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines if not any(word in line for word in LEFT_OUT)]


def _run(words: list[str]) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = scripts["scripts"][words[0]].partition(":")
    arguments = [WORDS.get(word, word) for word in words[1:]]
    assert getattr(import_module(module), function)(arguments) == 0, shlex.join(words)


@pytest.mark.parametrize(
    ("page", "count", "made"),
    [
        ("heatmaps.md", 1, "maps/heatmaps.html"),
        ("retrieval_index.md", 2, "found.html"),
        ("sharing.md", 1, "my_model/README.md"),
    ],
)
def test_commands(reader: Path, page: str, count: int, made: str) -> None:
    commands = _commands(page)
    assert len(commands) == count, commands
    for words in commands:
        _run(words)
    assert (reader / made).is_file()


def test_python_of_the_pages(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in _commands("sharing.md"):
        _run(words)
    for page, name in (("python_api.md", "scores"), ("sharing.md", "output")):
        block = next(b for b in code_blocks(page) if b.startswith("import colipri"))
        names: dict[str, Any] = {}
        exec(block, names)  # the page's own code
        assert name in names
    assert "tensor([[" in capsys.readouterr().out


def test_every_call_of_the_python_page_exists(reader: Path) -> None:
    model = colipri.load("MODEL", "cpu")
    table = (DOCUMENTATION / "python_api.md").read_text(encoding="utf-8")
    calls = re.findall(r"^\| `model\.(\w+)\(", table, re.MULTILINE)
    assert len(calls) >= 6 and all(callable(getattr(model, name)) for name in calls)
