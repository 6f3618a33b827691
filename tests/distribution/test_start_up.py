"""``import colipri`` and ``--help`` stay fast: they import none of the slow packages.

Measured by what is imported and not by a clock: torch alone takes seconds on any machine, and the
clock of a busy machine says little.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = (
    "torch",
    "transformers",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "SimpleITK",
    "nibabel",
    "nnunetv2",
    "dask",
)
RUN = Path(__file__).resolve().parents[2] / "colipri" / "run"
COMMANDS = sorted(
    path.stem for path in RUN.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")
)


def slow_imports(program: str) -> set[str]:
    """The slow packages that a new interpreter has imported after this program."""
    report = f"print(*sorted({set(SLOW)!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\n{report}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_import_of_the_package() -> None:
    assert slow_imports("import colipri; dir(colipri); colipri.ColipriError") == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    program = (
        f"from colipri.run.{command} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0"
    )
    assert slow_imports(program) == set()


def test_every_public_name_can_be_imported() -> None:
    program = "import colipri\nassert all(getattr(colipri, name) for name in colipri.__all__)"
    assert slow_imports(program)
