"""Merlin: abdominal CTs of Stanford with reports, findings labels and official splits."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase, split_name
from colipri.dataset_conversion.table.cells import identifier, label, report_text
from colipri.dataset_conversion.table.file import TableFile, TableRow
from colipri.text.reports.report import split_sections

_REPORTS = ("reports_final.xlsx", "reports_final_updated.xlsx", "reports_final.csv")
_LABELS = "zero_shot_findings_disease_cls.csv"
_STUDY = "study id"
_REPORT_COLUMNS = {
    "findings": ("Findings", "Findings_EN"),
    "impression": ("Impressions", "Impression", "Impressions_EN"),
}
_PATIENT = ("patient id", "patient_id", "PatientID")
_NO_LABELS = ("case_id", "accession", "split")  # columns of the label table beside the labels
_IMAGES = ("merlin_data", "")


class Merlin(Converter):
    """Convert the Merlin Abdominal CT Dataset (25,494 CTs of 18,317 patients with reports).

        colipri_convert_dataset merlin -i merlinabdominalctdataset -d 103 -n Merlin

    SOURCE is the downloaded folder: merlin_data/<study id>.nii.gz, reports_final.xlsx (columns
    "study id", "Findings", "Split") and zero_shot_findings_disease_cls.csv (1 mentioned, 0 negated,
    -1 not mentioned, which is unknown here). --reports and --labels name other tables.

    The published tables do not name the patient of a scan. The official split is by patient and is
    kept, so do not re-split the training part where patients must stay on one side.

    Licence: Stanford University Dataset Research Use Agreement (non-commercial, no
    redistribution); access: sign it at the Stanford AIMI Center's page of the data set.
    """

    licence = "Stanford University Dataset Research Use Agreement"
    reference = "Blankemeier et al., arXiv 2406.06512"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.root: Path = options.i
        self.reports = TableFile(options.reports or self._find(_REPORTS))
        self.reports.require([_STUDY, "Split"])
        present = {
            section: next((name for name in names if name in self.reports.columns), None)
            for section, names in _REPORT_COLUMNS.items()
        }
        if present["findings"] is None:
            near = difflib.get_close_matches("Findings", self.reports.columns, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'" if near else ""
            raise ColipriError(f"{self.reports.path} has no column 'Findings'{hint}")
        self.sections = {section: name for section, name in present.items() if name}
        self.patient = next((name for name in _PATIENT if name in self.reports.columns), None)
        path = options.labels or self.root / _LABELS
        self.labels = TableFile(path) if options.labels or path.is_file() else None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--reports and --labels."""
        parser.add_argument("--reports", type=Path, metavar="FILE", help="another report table")
        parser.add_argument("--labels", type=Path, metavar="FILE", help="another label table")

    def finding_names(self) -> Sequence[str]:
        """The label table's columns, as written there (30 findings)."""
        if self.labels is None:
            return ()
        other = {self._key_of_labels(), *_NO_LABELS}
        return [name for name in self.labels.columns if name and name not in other]

    def cases(self) -> Iterator[SourceCase]:
        """One case per row of the report table."""
        names = self.finding_names()
        labels = self._read_labels(names)
        columns = [
            _STUDY,
            "Split",
            *self.sections.values(),
            *([self.patient] if self.patient else []),
        ]
        for row in self.reports.rows(columns):
            where = f"{self.reports.path.name}, row {row.number}"
            try:
                if row.problem:
                    raise ColipriError(row.problem)
                yield self._case(row, labels, where)
            except ColipriError as error:
                yield SourceCase("", where, problem=str(error))

    def _case(self, row: TableRow, labels: dict[str, dict[str, Any]], where: str) -> SourceCase:
        study = identifier(row.cells[_STUDY], _STUDY)
        patient = self.patient
        return SourceCase(
            identifier=study,
            row=where,
            subject=identifier(row.cells[patient], patient) if patient else "",
            split=split_name(identifier(row.cells["Split"], "Split")),
            images=[self._image(study)],
            report=self._sections(row),
            findings={name: label(cell, name) for name, cell in labels.get(study, {}).items()},
        )

    def _sections(self, row: TableRow) -> dict[str, str]:
        """The published findings continue with "IMPRESSION: ..." in the same cell."""
        from colipri.dataset_conversion.dicom.source import named

        texts = {s: str(report_text(row.cells[name])) for s, name in self.sections.items()}
        sections = named(split_sections(texts.pop("findings")))
        return sections | {section: text for section, text in texts.items() if text}

    def _image(self, study: str) -> Path:
        candidates = [self.root / f / f"{study}{e}" for f in _IMAGES for e in (".nii.gz", ".nii")]
        return next((path for path in candidates if path.is_file()), candidates[0])

    def _key_of_labels(self) -> str:
        assert self.labels is not None
        known = (_STUDY, "study_id", "case_id", "accession")
        key = next((name for name in known if name in self.labels.columns), None)
        if key is None:
            raise ColipriError(f"{self.labels.path} has no column '{_STUDY}'")
        return key

    def _read_labels(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        if self.labels is None:
            return {}
        key = self._key_of_labels()
        rows = self.labels.rows([key, *names])
        return {
            str(row.cells[key]).strip(): {name: row.cells[name] for name in names}
            for row in rows
            if not row.problem
        }

    def _find(self, names: Sequence[str]) -> Path:
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        raise ColipriError(f"{self.root} has no {names[0]}; name the table with --reports")
