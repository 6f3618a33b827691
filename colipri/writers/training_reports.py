"""The training reports of a data set with the image embeddings of their scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from colipri.common.errors import ColipriError
from colipri.features.embeddings import encoded_cases
from colipri.inference.labelled_cases import (
    CaseCollection,
    LabelledCase,
    cases_of_split,
    label_matrix,
)
from colipri.inference.predictor import ColipriPredictor
from colipri.text.report_findings import finding_states
from colipri.text.reports.report import context_sections
from colipri.text.structured_report import StructuredReport

logger = logging.getLogger(__name__)

_LABEL_OF_STATE = {"present": 1.0, "absent": 0.0, "not_mentioned": 0.0, "uncertain": np.nan}
LABELS_FROM = ("columns", "reports")


@dataclass(frozen=True)
class EncodedReports:
    """Scans of a split: embedding, report and findings; n cases, F findings.

    Attributes:
        names: Of the cases.
        subjects: Patients.
        embeddings: (n, E) L2-normalised.
        texts: Reports as they are written; "" where a scan has none.
        labels: (n, F) of 0, 1 and NaN (unknown).
        finding_names: F.
    """

    names: tuple[str, ...]
    subjects: tuple[str, ...]
    embeddings: Tensor
    texts: tuple[str, ...]
    labels: np.ndarray
    finding_names: tuple[str, ...]

    def with_reports(self) -> EncodedReports:
        """Return the cases that have a report.

        Raises:
            ColipriError: there are none.
        """
        rows = [row for row, text in enumerate(self.texts) if text]
        if not rows:
            raise ColipriError("no training case has a report to write from")
        return EncodedReports(
            tuple(self.names[row] for row in rows),
            tuple(self.subjects[row] for row in rows),
            self.embeddings[rows],
            tuple(self.texts[row] for row in rows),
            self.labels[rows],
            self.finding_names,
        )


def encode_reports(
    predictor: ColipriPredictor,
    collection: CaseCollection,
    split: str,
    finding_names: Sequence[str] = (),
    labels_from: str = "columns",
    features: Path | None = None,
) -> EncodedReports:
    """Encode the scans of a split and read their reports and findings.

    Args:
        predictor: The model.
        collection: Of :func:`colipri.inference.labelled_cases.collect_cases`.
        split: train, val or test.
        finding_names: Default: the columns of cases.csv.
        labels_from: "columns" of cases.csv, or "reports": what they affirm and do not (what is
            only doubted is unknown).
        features: A folder that colipri_encode -d wrote; None encodes now.

    Raises:
        ColipriError: no such split, or no findings are named.
    """
    names = tuple(finding_names) or tuple(collection.finding_names)
    if not names:
        raise ColipriError(
            f"{collection.dataset} has no columns of findings; name findings with -f and take "
            "them from the reports (--labels reports)"
        )
    cases = cases_of_split(collection, split, predictor)
    encoded = encoded_cases(predictor, cases, split, features)
    reports = [case.report() if case.has_report else None for case in cases]
    if labels_from == "columns":
        labels = label_matrix(cases, names)
    else:
        labels = np.array([_labels_of(report, names) for report in reports])
    return EncodedReports(
        tuple(case.identifier for case in cases),
        tuple(case.subject for case in cases),
        encoded.embeddings,
        tuple("" if report is None else written_text(report) for report in reports),
        labels,
        names,
    )


def choose_labels_from(collection: CaseCollection, finding_names: Sequence[str]) -> str:
    """Return "columns" if cases.csv has every finding, else "reports"."""
    known = set(collection.finding_names)
    return "columns" if all(name in known for name in finding_names) and known else "reports"


def written_text(report: StructuredReport) -> str:
    """Return the sections about the image, each under its heading, sentences as written."""
    parts = []
    for section in report.sections:
        if section in context_sections():
            continue
        text = " ".join(sentence.text for sentence in report.sentences(section))
        if text:
            parts.append(f"{section.replace('_', ' ').capitalize()}: {text}" if section else text)
    return "\n\n".join(parts)


def reports_of(cases: Sequence[LabelledCase]) -> dict[str, StructuredReport]:
    """Return the structured report of every case that has one."""
    found = {case.identifier: case.report() for case in cases if case.has_report}
    return {name: report for name, report in found.items() if report is not None}


def nearest_rows(embeddings: Tensor, bank: Tensor) -> Tensor:
    """Return (n,) the row of ``bank`` (m, E) with the highest cosine to each embedding (n, E)."""
    return torch.argmax(embeddings.double() @ bank.double().T, dim=1)


def _labels_of(report: StructuredReport | None, names: Sequence[str]) -> list[float]:
    if report is None:
        return [float("nan")] * len(names)
    states = finding_states(report, names)
    return [_LABEL_OF_STATE[states[name]] for name in names]
