"""What pip installs: every file of the packages, every command, one version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import colipri

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
LINK = ROOT / "colipri" / "dataset_conversion"  # to the folder at the top; a wheel has the folder


@pytest.fixture(scope="module")
def project() -> dict:
    """The metadata in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source_files() -> set[Path]:
    """Files of the packages, relative to the repository."""
    return {
        path.relative_to(ROOT)
        for package in ("colipri", "dataset_conversion")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and LINK not in (path, *path.parents) and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_packages(source_files, tmp_path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for path in [*source_files, *map(Path, ("pyproject.toml", "setup.py", "README.md", "LICENSE"))]:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    options = ["--no-build-isolation", "--no-deps", "--no-index", "-w", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"colipri-{colipri.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {path.as_posix() for path in source_files}
    moved = "dataset_conversion/"  # so general a name is not for site-packages
    assert {f"colipri/{name}" if name.startswith(moved) else name for name in expected} <= names
    assert {name.partition("/")[0] for name in names} == {
        "colipri",
        f"colipri-{colipri.__version__}.dist-info",
    }


def test_every_command_exists(project) -> None:
    scripts = project["project"]["scripts"]
    assert len(scripts) >= 18
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_the_readme_lists_every_command(project) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2]
    assert set(re.findall(r"`(colipri_\w+)`", readme)) == set(project["project"]["scripts"])


def test_every_module_with_a_parser_is_a_command(project) -> None:
    """A command that nobody can call would be missed by no other test."""
    modules = {target.partition(":")[0] for target in project["project"]["scripts"].values()}
    found = {
        f"colipri.run.{path.stem}"
        for path in (ROOT / "colipri" / "run").glob("*.py")
        if re.search(r"^def main\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == modules


def test_the_version_is_written_in_one_place(project) -> None:
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "colipri.__version__"}
    version = re.escape(colipri.__version__)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {version}$", citation, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)


INDIRECT = {
    "torchvision": "timm, which nnunetv2 imports, needs one that matches torch",
    "tensorboard": "behind torch.utils.tensorboard",
}
IMPORTED_AS = {
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
    "acvl-utils": "acvl_utils",
}


def test_every_dependency_is_imported(project, source_files) -> None:
    names = {re.match(r"[\w-]+", entry)[0] for entry in project["project"]["dependencies"]}
    code = [
        (ROOT / path).read_text(encoding="utf-8") for path in source_files if path.suffix == ".py"
    ]
    modules = set(re.findall(r"^\s*(?:from|import) (\w+)", "\n".join(code), re.MULTILINE))
    unused = {name for name in names if IMPORTED_AS.get(name, name) not in modules}
    assert unused == set(INDIRECT)


def test_the_package_is_installed_from_the_repository() -> None:
    """PyPI's package of this name is another one."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "documentation").glob("*.md")]
    wrong = re.compile(r"pip install [^\n]*\bcolipri(\[\w+\])?['\"\s`]")
    assert [page.name for page in pages if wrong.search(page.read_text(encoding="utf-8"))] == []
