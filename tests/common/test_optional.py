"""Packages that are not installed: one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from colipri.common.optional import MissingPackage, optional_module


def test_an_installed_package_is_imported() -> None:
    assert optional_module("json.decoder", "", "This").__name__ == "json.decoder"


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(MissingPackage, match="This needs the package not_there; pip install a b"):
        optional_module("not_there.part", "a b", "This")


def test_a_package_that_lacks_a_package_names_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import not_there_either\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(MissingPackage, match="installed without not_there_either"):
        optional_module("broken_package", "", "This")
