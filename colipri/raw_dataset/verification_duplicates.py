"""The same image or the same report in several cases, found by content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.verification_findings import Finding, make_finding
from colipri.raw_dataset.verification_tables import side_of

_NAMED = 5  # other cases named in a message


def check_duplicate_images(cases: Iterable[Case], digests: Mapping[str, str]) -> Iterator[Finding]:
    """Cases whose voxels are equal, whatever their files are called or compressed with.

    Args:
        cases: all.
        digests: case -> digest of its voxels; "" for images that could not be read.
    """
    for group in _groups((digests.get(case.identifier, ""), case) for case in cases):
        if len({side_of(case) for case in group}) > 1:
            code = "image_duplicate_sides"
        elif len({case.subject for case in group}) > 1:
            code = "image_duplicate_subjects"
        else:
            code = "image_duplicate"
        described = [f"{case.identifier} ({side_of(case)})" for case in group[1:]]
        what = f"in {side_of(group[0])}, has the same voxels as {_listed(described)}"
        yield make_finding(code, group[0].identifier, group[0].images[0], what)


def check_shared_reports(cases: Iterable[Case], digests: Mapping[str, str]) -> Iterator[Finding]:
    """Reports of several subjects, as one file or word for word; and studies with two reports."""
    cases = list(cases)
    shared_files = set()
    for group in _groups((str(case.report or ""), case) for case in cases):
        subjects = {case.subject for case in group}
        if len(subjects) > 1:
            shared_files.add(group[0].report)
            yield _shared("report_file_shared", group, group[0].report, "is the report of")
    by_text = [(digests.get(case.identifier, ""), case) for case in cases]
    for group in _groups(item for item in by_text if item[1].report not in shared_files):
        if len({case.subject for case in group}) > 1:
            yield _shared("report_text_shared", group, group[0].report, "has the same words for")
    first: dict[str, tuple[str, Case]] = {}
    for digest, case in by_text:
        if not digest:
            continue
        other_digest, other = first.setdefault(case.study, (digest, case))
        if digest != other_digest:
            what = f"study {case.study} has another report with case {other.identifier}"
            yield make_finding("study_reports_differ", case.identifier, case.report, what)


def _shared(code: str, group: list[Case], report: Path | None, verb: str) -> Finding:
    subjects = sorted({case.subject for case in group})
    what = f"it {verb} {len(subjects)} subjects: {_listed(subjects)}"
    return make_finding(code, group[0].identifier, report, what)


def _groups(keyed: Iterable[tuple[str, Case]]) -> Iterator[list[Case]]:
    """Cases with the same key, two and more; cases without a key are in no group."""
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for key, case in keyed:
        if key:
            groups[key].append(case)
    return (group for group in groups.values() if len(group) > 1)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
