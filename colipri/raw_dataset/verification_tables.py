"""The data set as a whole: subjects, studies, splits, findings, and files that no case uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from colipri.raw_dataset.cases import Case
from colipri.raw_dataset.dataset import RawDataset
from colipri.raw_dataset.folders import Subfolders
from colipri.raw_dataset.verification_findings import Finding, make_finding

NUM_FOLDS = 5  # of the cross-validation that training makes


def check_tables(dataset: RawDataset, member_folders: Iterable[Path]) -> list[Finding]:
    """Everything that needs no file to be opened.

    Args:
        dataset: loaded.
        member_folders: its own folder, or those of a collection's members.
    """
    findings = [*_sides(dataset), *_studies(dataset), *_labels(dataset), *_counts(dataset)]
    for folder in member_folders:
        findings += _unlisted(folder, dataset.cases)
    return findings


def side_of(case: Case) -> str:
    """The side of the split that a case is on; what is not named is trained on."""
    return case.split or "train"


def _sides(dataset: RawDataset) -> Iterator[Finding]:
    table = dataset.folder / "cases.csv"
    first: dict[str, Case] = {}
    for case in dataset.cases:
        other = first.setdefault(case.subject, case)
        if side_of(other) != side_of(case):
            what = (
                f"subject {case.subject} is in {side_of(case)} here and in {side_of(other)} with "
                f"case {other.identifier}"
            )
            yield make_finding("subject_on_two_sides", case.identifier, table, what)


def _studies(dataset: RawDataset) -> Iterator[Finding]:
    table = dataset.folder / "cases.csv"
    first: dict[str, Case] = {}
    for case in dataset.cases:
        other = first.setdefault(case.study, case)
        if other.subject != case.subject:
            what = (
                f"study {case.study} belongs to subject {case.subject} here and to "
                f"{other.subject} with case {other.identifier}"
            )
            yield make_finding("study_of_two_subjects", case.identifier, table, what)


def _labels(dataset: RawDataset) -> Iterator[Finding]:
    table = dataset.folder / "cases.csv"
    for name in dataset.finding_names:
        known = {case.findings.get(name) for case in dataset.cases} - {None}
        if not known:
            yield make_finding("finding_unlabelled", "", table, f"'{name}' is never known")
        elif len(known) == 1:
            yield make_finding("finding_constant", "", table, f"'{name}' is always {known.pop()}")


def _counts(dataset: RawDataset) -> Iterator[Finding]:
    description = dataset.folder / "dataset.json"
    trained = [case for case in dataset.cases if case.split != "test"]
    stated: Any = dataset.dataset_json.get("numTraining")
    if stated is not None and stated != len(trained):
        what = f"numTraining is {stated}, but {len(trained)} cases are not in test"
        yield make_finding("num_training_differs", "", description, what)
    subjects = {case.subject for case in trained}
    if dataset.cases and len(subjects) < NUM_FOLDS and not any(c.split == "val" for c in trained):
        what = f"{len(subjects)} subjects outside test for {NUM_FOLDS} folds"
        yield make_finding("too_few_subjects", "", dataset.folder, what)
    if dataset.cases and not any(case.report for case in dataset.cases):
        yield make_finding("no_reports", "", dataset.folder, "none of the cases has a report")


def _unlisted(folder: Path, cases: Iterable[Case]) -> Iterator[Finding]:
    """Files that nothing uses: usually a row that was lost, or a name that was misspelt."""
    used: dict[str, set[str]] = {}
    for case in cases:
        for path in (*case.images, *([case.report] if case.report else [])):
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
            stems = {file.partition(".")[0] for file in here} if kind == "image_unlisted" else set()
            for file in sorted(subfolders.names(name) - here):
                if file.partition(".")[0] not in stems:  # .raw of .mhd, .json of .tif
                    what = f"{name}/{file} belongs to no case"
                    yield make_finding(kind, "", folder / name / file, what)
