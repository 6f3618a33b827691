"""The Dockerfile's steps without a daemon: what it copies installs, and every command runs.

Not shown here: the base image and what apt-get installs in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def test_the_image_is_not_root_and_has_the_three_folders() -> None:
    text = "\n".join(STEPS)
    user = re.search(r"^USER (\w+)$", text, re.MULTILINE)
    assert user is not None and user[1] != "root"
    for name in ("raw", "preprocessed", "results"):
        folder = re.search(rf"colipri_{name}=(\S+)", text)
        assert folder is not None and re.search(rf"mkdir -p [^&]*{folder[1]}\b", text)


@pytest.mark.slow
def test_what_it_copies_installs_and_every_command_runs(tmp_path: Path) -> None:
    """COPY and RUN pip install of the file, in an environment that borrows the dependencies."""
    source, environment = tmp_path / "src", tmp_path / "environment"
    source.mkdir()
    for line in STEPS:
        if line.startswith("COPY "):
            *names, target = line.split()[1:]
            for name in names:
                place = source / (target if len(names) == 1 else f"{target}/{name}")
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / name, place, symlinks=True, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, place)
    installs = [line for line in STEPS if "pip install" in line]
    assert installs == ['RUN pip install --no-cache-dir ".${EXTRAS}"']
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (Path(own) / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    options = ["install", "-q", "--no-deps", "--no-build-isolation", "--ignore-installed", "."]
    command = [sys.executable, "-m", "pip", "--python", str(python), *options]
    subprocess.run(command, cwd=source, check=True)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    scripts = sorted((environment / "bin").glob("colipri_*"))
    assert len(scripts) >= 30
    for script in scripts:
        done = subprocess.run(
            [script, "--help"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and f"usage: {script.name}" in done.stdout, done.stderr
    where = [python, "-c", "import colipri; print(colipri.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert found.stdout.startswith(str(environment))
