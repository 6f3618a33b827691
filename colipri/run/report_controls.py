"""References and controls of colipri_evaluate_reports, from files or from a data set."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from colipri.inference.labelled_cases import CaseCollection
    from colipri.inference.predictor import ColipriPredictor
    from colipri.report_metrics.report_pairs import JudgedText

logger = logging.getLogger("colipri")


@dataclass
class References:
    """The reports that are the truth, and what their data set says.

    Attributes:
        texts: Case -> report.
        patients: Case -> patient.
        finding_names: Columns of cases.csv; empty for files.
        labels: Case -> finding -> 0, 1 or NaN, of cases.csv; empty for files.
        training: Reports of the training split (files: --train).
        predictor: Where -m is given.
        collection: Of the data set, where -m is given.
    """

    texts: dict[str, JudgedText]
    patients: dict[str, str] = field(default_factory=dict)
    finding_names: tuple[str, ...] = ()
    labels: dict[str, dict[str, float]] = field(default_factory=dict)
    training: list[str] = field(default_factory=list)
    predictor: ColipriPredictor | None = None
    collection: CaseCollection | None = None


def load_references(options: argparse.Namespace) -> References:
    """Read the references: a file or folder, or the split of a data set by number or name."""
    from colipri.report_metrics.report_pairs import judged_text, read_report_texts

    sections = options.sections or ()
    found = References({})
    if Path(options.r).exists() and not _is_dataset_folder(options.r):
        texts = read_report_texts(options.r)
        found.texts = {case: judged_text(text, sections) for case, text in texts.items()}
        if options.d is not None:
            _add_dataset(found, options, options.d)
    else:
        _add_dataset(found, options, options.r)
        _read_split(found, options)
    if options.train is not None:
        found.training = list(read_report_texts(options.train).values())
    if options.patients is not None:
        found.patients = _read_patients(Path(options.patients))
    return found


def make_controls(
    options: argparse.Namespace, found: References, names: tuple[str, ...]
) -> dict[str, dict[str, JudgedText] | str]:
    """Write or read the controls; of one that cannot be made the reason is kept.

    Args:
        options: Of the command.
        found: The references.
        names: The findings that the head of the control "labels" predicts.
    """
    from colipri.report_metrics.report_pairs import judged_text, limit_words, read_report_texts
    from colipri.writers.controls import control_reports, random_reports

    made: dict[str, Mapping[str, str] | str] = {}
    if found.predictor is not None and found.collection is not None:
        made.update(
            control_reports(
                found.predictor,
                found.collection,
                sorted(found.texts),
                names,
                options.seed,
                None if options.features is None else Path(options.features),
            )
        )
    elif found.training:
        made["random"] = random_reports(sorted(found.texts), found.training, options.seed)
    given = dict(_named_file(text) for text in options.control or [])
    made.update({name: read_report_texts(path) for name, path in given.items()})
    for name, reason in (
        ("random", "give -d DATASET or --train REPORTS"),
        ("nearest", "give -m CHECKPOINT and -d DATASET, or --control nearest=FILE"),
        ("labels", "give -m CHECKPOINT and -d DATASET, or --control labels=FILE"),
    ):
        made.setdefault(name, reason)
    sections = options.sections or ()
    return {
        name: texts
        if isinstance(texts, str)
        else {c: judged_text(t, sections) for c, t in limit_words(texts, 5000).items()}
        for name, texts in made.items()
    }


def _add_dataset(found: References, options: argparse.Namespace, dataset: Any) -> None:
    """What the data set says beside the texts of its split."""
    from colipri.inference.labelled_cases import collect_cases
    from colipri.raw_dataset.dataset import load_raw_dataset
    from colipri.run.inference_options import make_predictor

    raw = load_raw_dataset(dataset)
    found.patients = {case.identifier: case.subject for case in raw.cases}
    found.finding_names = tuple(raw.finding_names)
    found.labels = {
        case.identifier: {
            name: float("nan") if value is None else float(value)
            for name, value in case.findings.items()
        }
        for case in raw.cases
    }
    if options.m is not None:
        found.predictor = make_predictor(options)
        found.collection = collect_cases(found.predictor, raw.name, options.source)
        return
    found.training = [
        text
        for case in raw.cases
        if case.split == "train" and case.report is not None
        for text in [_text_of(case)]
    ]


def _read_split(found: References, options: argparse.Namespace) -> None:
    """The reports of the split of a data set, as references."""
    from colipri.inference.labelled_cases import cases_of_split
    from colipri.raw_dataset.dataset import load_raw_dataset
    from colipri.raw_dataset.structured_reports import load_structured_report
    from colipri.report_metrics.report_pairs import judged_report
    from colipri.text.reports.report import read_report

    raw = load_raw_dataset(options.r)
    names = {case.identifier for case in raw.cases if case.split == options.split}
    if found.predictor is not None and found.collection is not None:
        names = {
            c.identifier for c in cases_of_split(found.collection, options.split, found.predictor)
        }
    without = 0
    for case in raw.cases:
        if case.identifier not in names:
            continue
        if case.report is None:
            without += 1
            continue
        report, structured = read_report(case.report), load_structured_report(case)
        found.texts[case.identifier] = judged_report(report, options.sections or (), structured)
    if without:
        logger.info("%d cases of the split have no report and are not judged", without)
    if not found.texts:
        known = sorted({case.split or "no split" for case in raw.cases})
        raise ColipriError(
            f"{raw.name} has no reports in the split '{options.split}' (cases.csv knows: "
            f"{', '.join(known)})"
        )


def _text_of(case: Any) -> str:
    from colipri.raw_dataset.structured_reports import load_structured_report
    from colipri.writers.training_reports import written_text

    report = load_structured_report(case)
    return "" if report is None else written_text(report)


def _is_dataset_folder(path: str) -> bool:
    return (Path(path) / "dataset.json").is_file()


def _named_file(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise ColipriError(f"--control takes NAME=FILE, not '{text}'")
    return name, path


def _read_patients(path: Path) -> dict[str, str]:
    """Case -> patient, of a table with columns case and subject."""
    from colipri.common.csv_text import csv_rows

    if not path.is_file():
        raise ColipriError(f"there is no table {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [cells for _, cells in csv_rows(file)]
    header = lines[0] if lines else []
    if "case" not in header or "subject" not in header:
        raise ColipriError(f"{path} needs the columns case and subject; it has {', '.join(header)}")
    case, subject = header.index("case"), header.index("subject")
    return {cells[case]: cells[subject] for cells in lines[1:] if len(cells) == len(header)}
