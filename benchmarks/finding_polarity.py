"""Polarity of named findings in hard sentences: the rules of colipri, by kind of sentence.

    python benchmarks/finding_polarity.py [--errors]

tests/text/finding_polarity.tsv gives for each sentence which findings are present, absent, possible
or not described. A finding counts as right if the first clause that names it has that polarity.
"given" are sentences by another author, to whom the rules were unknown; the rules were changed
until they read them. "variants" were written along with the rules, "blind" after them (114 of 120
findings right at the first run, rules changed since). All three figures are therefore optimistic.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report

SENTENCES = Path(__file__).resolve().parents[1] / "tests" / "text" / "finding_polarity.tsv"
PARTS = ("given", "variants", "blind")
_CODES = {"p": "positive", "n": "negative", "u": "uncertain", "0": "neutral"}
WHOLE = "*"  # instead of a finding: the sentence as a whole


class Finding(NamedTuple):
    """A finding in a sentence; several polarities if readers may disagree.

    ``name`` is a part of the sentence, or "*" for the whole sentence.
    """

    part: str
    kind: str
    sentence: str
    name: str
    expected: tuple[str, ...]


def read_findings(path: Path = SENTENCES) -> list[Finding]:
    """All findings, in the order of the file; its lines are part, kind, expected and sentence."""
    findings = []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    for line in lines[1:]:
        part, kind, expected, sentence = line.split("\t")
        for item in expected.split(";"):
            name, _, letters = item.rpartition("=")
            polarities = tuple(_CODES[letter] for letter in letters.split("/"))
            findings.append(Finding(part, kind, sentence, name, polarities))
    return findings


def clauses_of(sentence: str) -> list[tuple[str, str]]:
    """Text and polarity of the clauses, in the order of writing, as a report of one sentence."""
    structured = structure_report(report_from_text(sentence))
    return [(clause.text, clause.polarity) for clause in structured.sentences()]


def predict(finding: Finding) -> str:
    """The polarity of a finding; several joined by "|" for a whole sentence of several clauses."""
    clauses = clauses_of(finding.sentence)
    if finding.name != WHOLE:
        name = finding.name.lower()
        return next((p for text, p in clauses if name in text.lower()), "missing")
    found = {polarity for _, polarity in clauses}
    return "|".join(sorted(found - {"neutral"} or found))


def is_right(finding: Finding) -> bool:
    """True if the rules give one of the expected polarities."""
    return predict(finding) in finding.expected


def wrong(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding that the rules get wrong."""
    return [
        f"{f.kind}: {f.name} is {predict(f)}, not {'/'.join(f.expected)}: {clauses_of(f.sentence)}"
        for f in findings
        if not is_right(f)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the share of right findings per part and kind, and the mistakes if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--errors", action="store_true", help="list the mistakes")
    options = parser.parse_args(arguments)
    findings = read_findings()
    for part in PARTS:
        chosen = [finding for finding in findings if finding.part == part]
        right = sum(map(is_right, chosen))
        print(f"{part}: {right} of {len(chosen)} findings right, {right / len(chosen):.3f}")
        for kind in dict.fromkeys(finding.kind for finding in chosen):
            of_kind = [finding for finding in chosen if finding.kind == kind]
            print(f"  {kind:18s} {sum(map(is_right, of_kind)):3d} of {len(of_kind)}")
        for line in wrong(chosen) if options.errors else []:
            print(f"  {line}")


if __name__ == "__main__":
    main()
