"""The list of known faults names tests that exist and sources that can be looked up."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_kind_has_a_source_and_a_test() -> None:
    lines = (TESTS / "known_faults_images.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert len(rows) >= 18
    for kind, _, sources, test in rows:
        for source in sources.split(", "):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", source), kind
        path, function = test.strip("`").split("::")
        assert f"\ndef {function}(" in (TESTS / path).read_text(encoding="utf-8"), kind
