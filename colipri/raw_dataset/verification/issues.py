"""The issues that a verification finds: as objects, as text for people, as JSON for scripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from colipri.raw_dataset.verification.codes import CODES, ERROR, SEVERITIES, WARNING

SHOWN_PER_CODE = 10  # per code, in text; a broken converter causes one issue per case


@dataclass(frozen=True)
class Issue:
    """One problem, or something to check.

    Attributes:
        severity: "error", "warning" or "info".
        code: a key of CODES, stable.
        case: the case's identifier; "" if it concerns the data set.
        file: the file concerned; "" if none.
        message: what is wrong, and what to do.
    """

    severity: str
    code: str
    case: str
    file: str
    message: str


def make_issue(code: str, case: str, file: Path | str | None, what: str) -> Issue:
    """Build an issue; its message is ``what`` followed by the remedy of its code.

    Args:
        code: a key of CODES.
        case: the case's identifier; "" if the issue concerns the data set.
        file: the file concerned, if any.
        what: what is wrong.
    """
    kind = CODES[code]
    path = "" if file is None else str(file)
    return Issue(kind.severity, code, case, path, f"{what}; {kind.remedy}")


@dataclass(frozen=True)
class Verification:
    """The result for one data set.

    Attributes:
        dataset: its name.
        num_cases: number of cases checked.
        issues: errors first, then by code and case.
    """

    dataset: str
    num_cases: int
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        """Issues that must be fixed before training."""
        return tuple(issue for issue in self.issues if issue.severity == ERROR)

    @property
    def dataset_errors(self) -> tuple[Issue, ...]:
        """Errors that leaving out cases does not solve: of tables, and between cases."""
        return tuple(
            issue for issue in self.errors if not issue.case or CODES[issue.code].of_dataset
        )

    @property
    def left_out(self) -> dict[str, str]:
        """Cases with an error -> "code: message"; several errors are separated by "; "."""
        reasons: defaultdict[str, list[str]] = defaultdict(list)
        for issue in self.errors:
            if issue.case and not CODES[issue.code].of_dataset:
                reasons[issue.case].append(f"{issue.code}: {issue.message}")
        return {case: "; ".join(reasons[case]) for case in sorted(reasons)}

    @property
    def warnings(self) -> tuple[Issue, ...]:
        """Issues that somebody should check."""
        return tuple(issue for issue in self.issues if issue.severity == WARNING)

    def to_list(self) -> list[dict[str, str]]:
        """One plain object per issue: dataset, severity, code, case, file, message."""
        return [{"dataset": self.dataset, **asdict(issue)} for issue in self.issues]

    def to_text(self) -> str:
        """Text for the terminal: grouped by code, at most ten per code, and a line with counts."""
        groups: defaultdict[str, list[Issue]] = defaultdict(list)
        for issue in self.issues:
            groups[issue.code].append(issue)
        lines = [line for code, group in groups.items() for line in _group_lines(code, group)]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """ "Dataset101_ChestCT: 120 cases, 2 errors, 1 warning, 0 notes"."""
        counts = Counter(issue.severity for issue in self.issues)
        words = dict(zip(SEVERITIES, ("error", "warning", "note"), strict=True))
        parts = [_count(counts[severity], words[severity]) for severity in SEVERITIES]
        return ", ".join([f"{self.dataset}: {_count(self.num_cases, 'case')}", *parts])


def sort_issues(issues: Sequence[Issue]) -> tuple[Issue, ...]:
    """Sort errors first; the order does not depend on the number of processes."""
    order = {code: number for number, code in enumerate(CODES)}
    return tuple(
        sorted(
            issues,
            key=lambda f: (SEVERITIES.index(f.severity), order[f.code], f.case, f.file, f.message),
        )
    )


def _group_lines(code: str, group: Sequence[Issue]) -> list[str]:
    lines = [f"{group[0].severity.upper()} {code} ({len(group)}): {CODES[code].meaning}"]
    for issue in group[:SHOWN_PER_CODE]:
        where = ": ".join(part for part in (issue.case, issue.file) if part)
        lines.append(f"    {where}: {issue.message}" if where else f"    {issue.message}")
    if len(group) > SHOWN_PER_CODE:
        lines.append(f"    ... and {len(group) - SHOWN_PER_CODE} more, all of them in the JSON")
    return lines


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
