"""The Python examples of CONTRIBUTING.md, run as they are printed there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import Workspace
from experiment_planning.fingerprints import make_fingerprint

from colipri.experiment_planning.planning import plan_experiment

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples under their names; it is the working directory."""
    examples = tmp_path / "examples"
    examples.mkdir()
    for name, code in BLOCKS.items():
        (examples / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(examples)
    monkeypatch.syspath_prepend(str(examples))
    monkeypatch.setenv("colipri_ext", str(examples))
    return examples


@pytest.fixture
def fingerprint(workspace: Workspace) -> None:
    """A data set of which only the fingerprint is here, with the number 101."""
    target = workspace.preprocessed / "Dataset101_Chest"
    target.mkdir()
    content = make_fingerprint([[1.5, 0.75, 0.75]] * 40, [[330, 240, 350]] * 40)
    (target / "dataset_fingerprint.json").write_text(json.dumps(content), encoding="utf-8")


def run_example(name: str) -> None:
    exec(compile(BLOCKS[name], name, "exec"), {"__name__": name})


def test_every_example_is_tested() -> None:
    assert len(BLOCKS) == TEXT.count("```python")
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in BLOCKS if f'"{name}"' not in source and name != "my_metric.py"] == []


def test_planner(folder: Path, fingerprint: None) -> None:
    assert (folder / "my_planner.py").is_file()
    plans = plan_experiment("101", "FullBatchPlanner", 24.0, "scratch")
    configuration = plans.configuration("3d_lowres")
    assert configuration.batch_size == 64
    assert plan_experiment("101", "my_planner:FullBatchPlanner", 24.0, "scratch") is not None


def test_metric(folder: Path) -> None:
    run_example("use_my_metric.py")


def test_text_encoder(folder: Path, fingerprint: None) -> None:
    run_example("make_text_encoder.py")
    plans = plan_experiment("101", "ColipriPlanner", 24.0, str(folder / "my_text_encoder"))
    encoder = plans.configuration("3d_lowres").raw["text_encoder"]
    assert (encoder["source"], encoder["vocabulary_size"]) == ("pretrained", 9)
    assert encoder["arch_kwargs"]["hidden_size"] == 48


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "CHANGELOG.md"])
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_the_changelog_has_every_entry_once() -> None:
    """Two changes that edit one list easily leave both versions of it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=- |\n|#)", text)]
    starts = [entry[:40] for entry in entries if entry.startswith("- ")]
    assert sorted(starts) == sorted(set(starts))
