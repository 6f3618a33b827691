"""The command itself: listing, help, names, numbers, and the embedded data set."""

from __future__ import annotations

import time

import pytest
from commands import run
from conftest import Workspace

from colipri.dataset_conversion.registry import CONVERTERS
from colipri.raw_dataset.dataset import load_raw_dataset
from colipri.run.convert_dataset import build_converter_parser, main


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_converter_is_listed_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    listing = capsys.readouterr().out
    assert f"    {name} " in listing and CONVERTERS[name].summary in listing
    text = build_converter_parser(name).format_help()
    assert "licence" in text.lower(), "the licence and access terms belong into the help"
    assert f"colipri_convert_dataset {name}" in text, "an example call belongs into the help"


def test_help_is_quick() -> None:
    start = time.perf_counter()
    result = run("colipri_convert_dataset", "--help")
    seconds = time.perf_counter() - start
    assert result.returncode == 0
    assert seconds < 2, "0.2 s when idle; the margin is for busy machines"


@pytest.mark.parametrize("name", CONVERTERS)
def test_help_imports_nothing_heavy(name: str) -> None:
    program = (
        "import sys; from colipri.run.convert_dataset import build_converter_parser as b; "
        f"b({name!r}); print([m for m in ('torch', 'pandas', 'SimpleITK', 'numpy', 'pydicom') "
        "if m in sys.modules])"
    )
    import subprocess
    import sys

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_a_misspelt_name_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["semi_syntetic_chest", "-d", "1", "-n", "A"]) == 1
    assert "did you mean 'semi_synthetic_chest'?" in capsys.readouterr().err


def test_without_a_name_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "0", "-n", "A"], "positive"),
        (["-d", "5", "-n", "../A"], "letters, digits"),
        (["-d", "5", "-n", "A", "-np", "0"], "at least 1"),
        (["-d", "7", "-n", "A"], "belongs to Dataset007_Other"),
    ],
)
def test_the_target_is_checked_first(
    arguments: list[str], message: str, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.raw / "Dataset007_Other").mkdir()
    assert main(["semi_synthetic_chest", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert [f.name for f in workspace.raw.iterdir()] == ["Dataset007_Other"]


def test_the_embedded_set_is_built(workspace: Workspace) -> None:
    arguments = "semi_synthetic_chest -d 901 -n SemiSyntheticChest --num_studies 4 --seed 1 -np 1"
    assert main(arguments.split()) == 0
    data = load_raw_dataset(901)
    assert data.name == "Dataset901_SemiSyntheticChest"
    assert {case.split for case in data.cases} == {"train", "val", "test"}
    before = {f: f.stat().st_mtime_ns for f in data.folder.rglob("*.nii.gz")}
    assert main(arguments.split()) == 0, "safe to run again"
    assert before == {f: f.stat().st_mtime_ns for f in data.folder.rglob("*.nii.gz")}
