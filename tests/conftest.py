"""Fixtures for all tests: the folders of the framework, and the optional shared real data."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start: threads of several processes
# wait for each other, which makes small networks many times slower than one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Workspace:
    """The three folders of one test, set in the environment."""

    raw: Path
    preprocessed: Path
    results: Path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output valid UTF-8: odd file names in it end the workers of pytest-xdist."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Empty $colipri_raw, $colipri_preprocessed and $colipri_results."""
    folders = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    for name in ("raw", "preprocessed", "results"):
        folder = getattr(folders, name)
        folder.mkdir()
        monkeypatch.setenv(f"colipri_{name}", str(folder))
    return folders


@pytest.fixture(autouse=True)
def colipri_logger() -> Iterator[logging.Logger]:
    """The package's logger, left as it was found: a command sets its level and its handlers."""
    logger = logging.getLogger("colipri")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.propagate = propagate
    logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans that are kept beside the repository, not in it; tests skip without them."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real scans in ../shared/data, which are not part of the repository")
    return folder
