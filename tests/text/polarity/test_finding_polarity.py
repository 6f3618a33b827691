"""Polarity of named findings in hard sentences, by kind of sentence."""

from __future__ import annotations

from types import ModuleType

import pytest

KINDS = ("suspicious_list",)


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding_of_a_kind(finding_benchmark: ModuleType, kind: str) -> None:
    findings = [f for f in finding_benchmark.read_findings() if f.kind == kind]
    assert len(findings) >= 8
    assert finding_benchmark.wrong(findings) == []
