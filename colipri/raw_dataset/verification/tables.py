"""Checks across cases: subjects, studies, splits, findings, unused files and duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.imageio.parts import image_ending, side_files
from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.description import read_description
from colipri.raw_dataset.labels import gap_in_labels
from colipri.raw_dataset.rows import Subfolders
from colipri.raw_dataset.verification.issues import Issue, make_issue

_NAMED = 5  # other cases named in a message
NUM_FOLDS = 5  # of the cross-validation in training


def check_tables(dataset: RawDataset, member_folders: Iterable[Path]) -> list[Issue]:
    """Run all checks that do not open a file.

    Args:
        dataset: loaded.
        member_folders: its own folder, or the folders of a collection's members.
    """
    issues = [*_sides(dataset), *_studies(dataset), *_labels(dataset), *_counts(dataset)]
    for folder in member_folders:
        issues += _label_names(folder)
        issues += _unlisted(folder, dataset.cases)
    return issues


def side_of(case: Case) -> str:
    """The side of the split that a case is on; cases without a split are trained on."""
    return case.split or "train"


def _sides(dataset: RawDataset) -> Iterator[Issue]:
    table = dataset.folder / "cases.csv"
    first: dict[str, Case] = {}
    for case in dataset.cases:
        other = first.setdefault(case.subject, case)
        if side_of(other) != side_of(case):
            what = (
                f"subject {case.subject} is in {side_of(case)} here and in {side_of(other)} with "
                f"case {other.identifier}"
            )
            yield make_issue("subject_on_two_sides", case.identifier, table, what)


def _studies(dataset: RawDataset) -> Iterator[Issue]:
    table = dataset.folder / "cases.csv"
    first: dict[str, Case] = {}
    for case in dataset.cases:
        other = first.setdefault(case.study, case)
        if other.subject != case.subject:
            what = (
                f"study {case.study} belongs to subject {case.subject} here and to "
                f"{other.subject} with case {other.identifier}"
            )
            yield make_issue("study_of_two_subjects", case.identifier, table, what)


def _labels(dataset: RawDataset) -> Iterator[Issue]:
    table = dataset.folder / "cases.csv"
    for name in dataset.finding_names:
        known = {case.findings.get(name) for case in dataset.cases} - {None}
        if not known:
            yield make_issue("finding_unlabelled", "", table, f"'{name}' is never known")
        elif len(known) == 1:
            yield make_issue("finding_constant", "", table, f"'{name}' is always {known.pop()}")


def _label_names(folder: Path) -> Iterator[Issue]:
    """Check dataset.json's labels, which nnU-Net and the outlines of findings use."""
    file = folder / "dataset.json"
    try:
        labels = read_description(folder).get("labels")
        gap = "" if labels is None else gap_in_labels(labels, "dataset.json")
    except ColipriError as error:
        yield make_issue("labels_invalid", "", file, str(error))
        return
    if gap:
        yield make_issue("labels_with_gap", "", file, gap)


def _counts(dataset: RawDataset) -> Iterator[Issue]:
    description = dataset.folder / "dataset.json"
    trained = [case for case in dataset.cases if case.split != "test"]
    stated: Any = dataset.dataset_json.get("numTraining")
    if stated is not None and stated != len(trained):
        what = f"numTraining is {stated}, but {len(trained)} cases are not in test"
        yield make_issue("num_training_differs", "", description, what)
    subjects = {case.subject for case in trained}
    if dataset.cases and len(subjects) < NUM_FOLDS and not any(c.split == "val" for c in trained):
        what = f"{len(subjects)} subjects outside test for {NUM_FOLDS} folds"
        yield make_issue("too_few_subjects", "", dataset.folder, what)
    if dataset.cases and not any(case.report for case in dataset.cases):
        yield make_issue("no_reports", "", dataset.folder, "none of the cases has a report")


def _unlisted(folder: Path, cases: Iterable[Case]) -> Iterator[Issue]:
    """Files that no case uses: usually because of a lost row or a misspelt name."""
    used: dict[str, set[str]] = {}
    for case in cases:
        images = [file for image in case.images for file in _with_side_files(image)]
        for path in (*images, *([case.report] if case.report else [])):
            if path.is_relative_to(folder):
                parts = path.relative_to(folder).parts
                if len(parts) > 1:
                    used.setdefault(parts[0], set()).add(parts[1])
    subfolders = Subfolders(folder)
    for kind, names in (
        ("image_unlisted", ("imagesTr", "imagesTs")),
        ("report_unlisted", ("reportsTr", "reportsTs")),
    ):
        for name in names:
            here = used.get(name, set())
            stems = {_stem(file) for file in here} if kind == "image_unlisted" else set()
            hidden = sorted(n for n in subfolders.hidden(name) if image_ending(n))
            if hidden:
                what = f"{len(hidden)} in {name}, first {hidden[0]}"
                yield make_issue("image_hidden", "", folder / name / hidden[0], what)
            for file in sorted(subfolders.names(name) - here):
                if image_ending(file) or Path(file).stem not in stems:  # scan.json beside scan.nii
                    what = f"{name}/{file} belongs to no case"
                    yield make_issue(kind, "", folder / name / file, what)


def _with_side_files(image: Path) -> tuple[Path, ...]:
    try:
        return (image, *side_files(image))
    except (ColipriError, OSError):  # the check of the image itself says why
        return (image,)


def _stem(name: str) -> str:
    return name.removesuffix(image_ending(name))


def check_duplicate_images(cases: Iterable[Case], digests: Mapping[str, str]) -> Iterator[Issue]:
    """Find cases with equal voxels, regardless of file names and compression.

    Args:
        cases: all cases.
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
        yield make_issue(code, group[0].identifier, group[0].images[0], what)


def check_shared_reports(cases: Iterable[Case], digests: Mapping[str, str]) -> Iterator[Issue]:
    """Find reports shared by several subjects (as a file or as text), and studies with two reports.

    Args:
        cases: all cases.
        digests: case -> digest of its report's text; "" without a readable report.
    """
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
            yield _shared("report_text_shared", group, group[0].report, "has the same text for")
    first: dict[str, tuple[str, Case]] = {}
    for digest, case in by_text:
        if not digest:
            continue
        other_digest, other = first.setdefault(case.study, (digest, case))
        if digest != other_digest:
            what = f"study {case.study} has another report with case {other.identifier}"
            yield make_issue("study_reports_differ", case.identifier, case.report, what)


def _shared(code: str, group: list[Case], report: Path | None, verb: str) -> Issue:
    subjects = sorted({case.subject for case in group})
    what = f"it {verb} {len(subjects)} subjects: {_listed(subjects)}"
    return make_issue(code, group[0].identifier, report, what)


def _groups(keyed: Iterable[tuple[str, Case]]) -> Iterator[list[Case]]:
    """Groups of at least two cases with the same key; cases with an empty key are ignored."""
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for key, case in keyed:
        if key:
            groups[key].append(case)
    return (group for group in groups.values() if len(group) > 1)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
