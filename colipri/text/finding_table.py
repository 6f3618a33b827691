"""The table of findings: study by finding, present, absent or unknown.

Labels come from the columns of cases.csv and from the structured reports (rules, or a language
model that structured them). A column says what somebody decided, so it comes first; a report fills
in what the column leaves open. What a report doubts or does not mention stays unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from colipri.text.anatomy import names_a_side, swap_sides
from colipri.text.finding_names import FindingNames
from colipri.text.report_findings import finding_states
from colipri.text.structured_report import StructuredReport

Findings = Mapping[str, int | None]
UNKNOWN = math.nan
_STATES = {"present": 1.0, "absent": 0.0}


class FindingTable:
    """Which findings can be learned, and what is known of a study.

    Args:
        studies: label columns and report of every training case.
        source: where labels come from, one of :attr:`SOURCES`.
        wanted: findings; None for the label columns and all names that some reports assert and
            others deny.
        fewest: studies on either side that a finding needs.

    Attributes:
        names: F findings that have enough of both.
        counts: per finding, how many studies show it and how many lack it.
        left_out: finding -> the same counts, of those that have not.
        contradictions: finding -> studies whose column and report disagree.
    """

    SOURCES = ("columns_and_reports", "columns", "reports")

    def __init__(
        self,
        studies: Iterable[tuple[Findings, StructuredReport | None]],
        source: str = "columns_and_reports",
        wanted: Sequence[str] | None = None,
        fewest: int = 1,
    ) -> None:
        known = list(studies)
        self.source = source
        candidates = list(wanted) if wanted is not None else self._candidates(known)
        self.contradictions: Counter[str] = Counter()
        self.names = tuple(candidates)
        counts = [[0, 0] for _ in candidates]
        for findings, report in known:
            for number, label in enumerate(self.row(findings, report)):
                if label == label:
                    counts[number][0 if label == 1 else 1] += 1
            self._compare(findings, report)
        enough = [min(present, absent) >= fewest for present, absent in counts]
        self.left_out = {
            name: (present, absent)
            for name, (present, absent), keep in zip(candidates, counts, enough, strict=True)
            if not keep
        }
        self.names = tuple(n for n, keep in zip(candidates, enough, strict=True) if keep)
        self.counts = [(p, a) for (p, a), keep in zip(counts, enough, strict=True) if keep]

    def row(self, findings: Findings, report: StructuredReport | None) -> list[float]:
        """(F,) labels of a study: 1, 0, or not a number where nothing is known.

        Args:
            findings: its label columns.
            report: its structured report, if it has one.
        """
        row = [UNKNOWN] * len(self.names)
        if self.source != "columns" and report is not None:
            states = finding_states(report, self.names)
            row = [_STATES.get(states[name], UNKNOWN) for name in self.names]
        if self.source != "reports":
            labels = [findings.get(name) for name in self.names]
            row = [
                told if label is None else float(label)
                for told, label in zip(row, labels, strict=True)
            ]
        return row

    def notes(self) -> list[str]:
        """What a user should know: findings that are left out, and contradictions."""
        lines = []
        if self.left_out:
            shown = ", ".join(
                f"{name} ({present} studies with it, {absent} without)"
                for name, (present, absent) in sorted(self.left_out.items())[:5]
            )
            more = ", ..." if len(self.left_out) > 5 else ""
            lines.append(f"{len(self.left_out)} findings have too few studies: {shown}{more}")
        if self.contradictions:
            total = sum(self.contradictions.values())
            name, count = self.contradictions.most_common(1)[0]
            lines.append(
                f"label columns and reports contradict each other {total} times, most often about "
                f"{name} ({count} studies); the column counts"
            )
        return lines

    def _candidates(self, studies: Sequence[tuple[Findings, StructuredReport | None]]) -> list[str]:
        columns: list[str] = []
        if self.source != "reports":
            columns = list(dict.fromkeys(name for findings, _ in studies for name in findings))
        if self.source == "columns":
            return columns
        taken = {name.lower().replace("_", " ") for name in columns}
        reports = [report for _, report in studies if report is not None]
        names = FindingNames(reports).names
        return columns + [name for name in names if name not in taken]

    def _compare(self, findings: Findings, report: StructuredReport | None) -> None:
        if self.source != "columns_and_reports" or report is None:
            return
        states = finding_states(report, self.names)
        for name in self.names:
            told = _STATES.get(states[name])
            if told is not None and findings.get(name) not in (None, int(told)):
                self.contradictions[name] += 1


def mirrored_findings(findings: Findings) -> dict[str, int | None]:
    """Labels of the mirrored image: "Left effusion" takes the value of "Right effusion".

    A finding that names a side without a counterpart among the columns becomes unknown.
    """
    return {
        name: findings.get(swap_sides(name)) if names_a_side(name) else value
        for name, value in findings.items()
    }
