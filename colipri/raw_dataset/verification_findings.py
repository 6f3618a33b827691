"""What a verification found, as objects, as text for people and as JSON for scripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from colipri.raw_dataset.verification_codes import CODES, ERROR, SEVERITIES, WARNING

SHOWN_PER_CODE = 10  # of a kind, in text; a broken converter makes one for every case


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth a look.

    Attributes:
        severity: "error", "warning" or "info".
        code: a key of CODES, stable.
        case: the case's identifier; "" if it concerns the data set.
        file: the file in question; "" if none.
        message: what is wrong, and what to do.
    """

    severity: str
    code: str
    case: str
    file: str
    message: str


def make_finding(code: str, case: str, file: Path | str | None, what: str) -> Finding:
    """A finding of a known kind; the message is ``what`` with the kind's remedy."""
    kind = CODES[code]
    path = "" if file is None else str(file)
    return Finding(kind.severity, code, case, path, f"{what}; {kind.remedy}")


@dataclass(frozen=True)
class Verification:
    """The result for one data set.

    Attributes:
        dataset: its name.
        num_cases: how many cases were looked at.
        findings: errors first, then by code and case.
    """

    dataset: str
    num_cases: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that training must not ignore."""
        return tuple(found for found in self.findings if found.severity == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that somebody should look at."""
        return tuple(found for found in self.findings if found.severity == WARNING)

    def to_list(self) -> list[dict[str, str]]:
        """One plain object per finding: dataset, severity, code, case, file, message."""
        return [{"dataset": self.dataset, **asdict(found)} for found in self.findings]

    def to_text(self) -> str:
        """For the terminal: grouped by code, at most ten of a kind, and a last line with counts."""
        groups: defaultdict[str, list[Finding]] = defaultdict(list)
        for found in self.findings:
            groups[found.code].append(found)
        lines = [line for code, group in groups.items() for line in _group_lines(code, group)]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """ "Dataset101_ChestCT: 120 cases, 2 errors, 1 warning, 0 notes"."""
        counts = Counter(found.severity for found in self.findings)
        words = dict(zip(SEVERITIES, ("error", "warning", "note"), strict=True))
        parts = [_count(counts[severity], words[severity]) for severity in SEVERITIES]
        return ", ".join([f"{self.dataset}: {_count(self.num_cases, 'case')}", *parts])


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first; the same order whatever the number of processes was."""
    order = {code: number for number, code in enumerate(CODES)}
    return tuple(
        sorted(
            findings,
            key=lambda f: (SEVERITIES.index(f.severity), order[f.code], f.case, f.file, f.message),
        )
    )


def _group_lines(code: str, group: Sequence[Finding]) -> list[str]:
    lines = [f"{group[0].severity.upper()} {code} ({len(group)}): {CODES[code].meaning}"]
    for found in group[:SHOWN_PER_CODE]:
        where = ": ".join(part for part in (found.case, found.file) if part)
        lines.append(f"    {where}: {found.message}" if where else f"    {found.message}")
    if len(group) > SHOWN_PER_CODE:
        lines.append(f"    ... and {len(group) - SHOWN_PER_CODE} more, all of them in the JSON")
    return lines


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
