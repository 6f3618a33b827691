"""The benchmark's reader and scores, so that tests and printed figures are the same."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def benchmark() -> ModuleType:
    """benchmarks/text_structuring.py as a module."""
    return _benchmark("text_structuring")


@pytest.fixture(scope="session")
def finding_benchmark() -> ModuleType:
    """benchmarks/finding_polarity.py as a module."""
    return _benchmark("finding_polarity")


def _benchmark(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
