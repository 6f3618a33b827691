"""The released colipri 0.1.3 in an environment of its own: its import name is the same as ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def released_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a fresh environment with colipri 0.1.3.

    A path file lends it the packages that are installed here (torch and transformers are not
    downloaded again); its own folder comes first, so ``colipri`` is the released one.
    """
    root = tmp_path_factory.mktemp("released") / "env"
    venv.create(root, with_pip=False)
    python = root / ("Scripts" if os.name == "nt" else "bin") / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    done = subprocess.run([*command, "colipri==0.1.3"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"colipri 0.1.3 cannot be installed here: {done.stderr.strip()[-300:]}")
    return python
