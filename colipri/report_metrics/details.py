"""Side, size and negation: does what is written about a finding contradict the reference?

Of every finding that both reports affirm, the sides and sizes that both give are compared; of every
finding that both mention, whether one affirms what the other denies. What only one report says is
no contradiction: it is counted by precision and recall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from colipri.report_metrics.report_pairs import JudgedText, ReportPairs
from colipri.report_metrics.resampling import Measured, Resamples, measure, ratio
from colipri.text.report_findings import describing_sentences, finding_states, findings_named

KINDS = ("side", "size", "negation")
# Two readers of one nodule differ by less (about 1.7 mm, or a quarter of a small one).
SIZE_TOLERANCE = 1.25
SIZE_TOLERANCE_MM = 2.0

_LEFT = re.compile(r"(?<!\w)(?:left(?:-sided|ward)?|lt|l[ul]l|lingula\w*)(?!\w)", re.I)
_RIGHT = re.compile(r"(?<!\w)(?:right(?:-sided|ward)?|rt|r[uml]l|middle lobe)(?!\w)", re.I)
_BOTH = re.compile(
    r"(?<!\w)(?:bilateral(?:ly)?|both (?:lungs|sides|lower|upper)|bibas\w*)(?!\w)", re.I
)
_MEASURE = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:(mm|cm)\s*)?((?:[x\u00d7*]\s*\d+(?:[.,]\d+)?\s*(?:mm|cm)?\s*)*)(?<![a-z])"
    r"(mm|cm)?(?![a-z0-9])",
    re.I,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_GRADES = {
    0: r"tiny|trace|minimal|minimally|small|mild|mildly|slight|slightly|subtle|discrete",
    1: r"moderate|moderately|moderate-sized",
    2: r"large|severe|severely|massive|marked|markedly|extensive|extensively|gross|grossly",
}
_GRADE = {grade: re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.I) for grade, words in _GRADES.items()}


@dataclass
class Description:
    """What a report says about one finding that it affirms."""

    sides: set[str] = field(default_factory=set)
    millimetres: list[float] = field(default_factory=list)
    grades: set[int] = field(default_factory=set)


def detail_metrics(
    pairs: ReportPairs, finding_names: Sequence[str], resamples: Resamples
) -> dict[str, dict[str, object]]:
    """Return the rate of contradictions: per kind {value, low, high}, ``errors``, ``compared``.

    Args:
        pairs: n reports each.
        finding_names: That are looked for.
        resamples: Of the patients.
    """
    rows = np.array(
        [
            _compare(reference, written, finding_names)
            for reference, written in zip(pairs.references, pairs.generated, strict=True)
        ],
        dtype=float,
    ).reshape(len(pairs.cases), len(KINDS), 2)
    result: dict[str, dict[str, object]] = {}
    for index, kind in enumerate(KINDS):
        columns = rows[:, index]
        measured: Measured = measure(columns, lambda s: ratio(s[:, 0], s[:, 1]), resamples)
        people = {p for p, row in zip(pairs.patients, columns, strict=True) if row[1] > 0}
        result[kind] = {
            **measured.to_dict(len(people)),
            "errors": int(columns[:, 0].sum()),
            "compared": int(columns[:, 1].sum()),
        }
    return result


def describe_findings(text: JudgedText, finding_names: Sequence[str]) -> dict[str, Description]:
    """Return sides and sizes of the findings that a report affirms.

    A sentence about several findings gives its sides and sizes to none of them: which belongs to
    which cannot be told by rules.
    """
    found: dict[str, Description] = {}
    for sentence in describing_sentences(text.structured):
        if sentence.polarity != "positive":
            continue
        named = findings_named(sentence.text, tuple(finding_names))
        for name in named:
            entry = found.setdefault(name, Description())
            if len(named) == 1:
                entry.sides |= sides_in(sentence.text)
                entry.millimetres += measures_in(sentence.text)
                entry.grades |= grades_in(sentence.text)
    return found


def sides_in(sentence: str) -> set[str]:
    """Return "left" and "right" as far as a sentence names them; both for "bilateral"."""
    if _BOTH.search(sentence):
        return {"left", "right"}
    sides = {"left": _LEFT, "right": _RIGHT}
    return {side for side, pattern in sides.items() if pattern.search(sentence)}


def measures_in(sentence: str) -> list[float]:
    """Return the lengths of a sentence in mm; of "12 x 9 mm" the longer one.

    Example:
        >>> measures_in("Nodules of 8 mm and 1.2 x 0.9 cm, image 112.")
        [8.0, 12.0]
    """
    found = []
    for match in _MEASURE.finditer(sentence):
        first, unit, more, last_unit = match.groups()
        unit = last_unit or unit or (re.findall(r"mm|cm", more.lower()) or [""])[-1]
        if not unit:
            continue
        numbers = [float(n.replace(",", ".")) for n in (first, *_NUMBER.findall(more))]
        found.append(max(numbers) * (10 if unit.lower() == "cm" else 1))
    return found


def grades_in(sentence: str) -> set[int]:
    """Return 0 (small, mild), 1 (moderate) and 2 (large, severe), as far as they are named."""
    return {grade for grade, pattern in _GRADE.items() if pattern.search(sentence)}


def _compare(
    reference: JudgedText, written: JudgedText, names: Sequence[str]
) -> list[tuple[int, int]]:
    """Errors and comparisons of each kind."""
    first, second = describe_findings(reference, names), describe_findings(written, names)
    shared = [(first[name], second[name]) for name in names if name in first and name in second]
    sides = [a.sides != b.sides for a, b in shared if a.sides and b.sides]
    sizes = [wrong for a, b in shared if (wrong := _sizes_differ(a, b)) is not None]
    return [_tally(sides), _tally(sizes), _tally(_negations(reference, written, names))]


def _sizes_differ(first: Description, second: Description) -> bool | None:
    """Compare the largest length where both give one, else the grades; None if neither."""
    if first.millimetres and second.millimetres:
        small, large = sorted((max(first.millimetres), max(second.millimetres)))
        return large - small > SIZE_TOLERANCE_MM and large > SIZE_TOLERANCE * small
    if first.grades and second.grades:
        return not first.grades & second.grades
    return None


def _negations(reference: JudgedText, written: JudgedText, names: Sequence[str]) -> Iterable[bool]:
    stated = finding_states(reference.structured, names)
    said = finding_states(written.structured, names)
    definite = ("present", "absent")
    return [
        stated[name] != said[name]
        for name in names
        if stated[name] in definite and said[name] in definite
    ]


def _tally(wrong: Iterable[bool]) -> tuple[int, int]:
    outcomes = list(wrong)
    return sum(outcomes), len(outcomes)
