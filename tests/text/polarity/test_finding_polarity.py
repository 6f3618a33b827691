"""Polarity of named findings in hard sentences, by kind of sentence."""

from __future__ import annotations

from types import ModuleType

import pytest

KINDS = (
    *("suspicious_list", "double_negation", "no_change", "resolution", "rule_out", "versus"),
    *("asserted_cause", "comparison", "history", "template", "measurement", "addendum"),
    *("indication", "laterality", "normal", "translationese", "dictation", "abdomen", "pe"),
    *("hypothetical", "mixed"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding_of_a_kind(finding_benchmark: ModuleType, kind: str) -> None:
    findings = [f for f in finding_benchmark.read_findings() if f.kind == kind]
    chosen = [finding for finding in findings if finding.part != "blind"]
    assert len(chosen) >= 8
    assert finding_benchmark.wrong(chosen) == []


def test_sentences_written_after_the_rules(finding_benchmark: ModuleType) -> None:
    """114 of 120 were right at the first run."""
    findings = [f for f in finding_benchmark.read_findings() if f.part == "blind"]
    assert len(findings) >= 100
    assert len(finding_benchmark.wrong(findings)) <= 0.05 * len(findings)


def test_all_kinds_are_tested(finding_benchmark: ModuleType) -> None:
    findings = finding_benchmark.read_findings()
    assert {finding.kind for finding in findings} == set(KINDS)
    sentences = {finding.sentence for finding in findings}
    assert len(sentences) > 500
    for part in finding_benchmark.PARTS:
        assert any(finding.part == part for finding in findings)
