"""INSPECT: CT pulmonary angiograms of Stanford with impressions and embolism labels."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase, split_name
from colipri.dataset_conversion.table.cells import identifier, label, report_text
from colipri.dataset_conversion.table.file import TableFile

_KEY = "impression_id"
_IMPRESSIONS = ("impressions_*.tsv", "Final_Impressions.csv", "Final_Impressions.xlsx")
_TEXT = ("impressions", "impression", "Impressions_EN")
# What the impression states about this scan. Outcomes of later months (mortality, readmission) are
# not findings of the image and are left to whoever predicts them.
_LABELS = {
    "Pulmonary embolism": ("pe_positive_nlp", "pe_positive"),
    "Acute pulmonary embolism": ("pe_acute",),
    "Subsegmental pulmonary embolism only": ("pe_subsegmentalonly",),
}


class Inspect(Converter):
    """Convert INSPECT (23,248 CT pulmonary angiograms of 19,402 patients with impressions).

        colipri_convert_dataset inspect -i inspect/full -d 104 -n INSPECT

    SOURCE is the downloaded folder full/: CTPA/<image_id>.nii.gz; impressions_<date>.tsv or
    Final_Impressions.csv (impression_id, impressions); study_mapping_<date>.tsv (impression_id,
    image_id, person_id); splits_<date>.tsv (impression_id, split); labels_<date>.tsv (embolism).
    Without the mapping (first release) images are called <impression_id>.nii.gz, and splits,
    patients and labels are unknown.

    Reports are impressions only. Labels come from the text, by a language model.

    Licence: Stanford University Dataset Research Use Agreement (non-commercial, no
    redistribution); access: sign it at the Stanford AIMI Center's page of the data set.
    """

    licence = "Stanford University Dataset Research Use Agreement"
    reference = "Huang et al., INSPECT, NeurIPS Datasets and Benchmarks 2023, arXiv 2311.10798"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.root: Path = options.i
        impressions = self._find(*_IMPRESSIONS)
        if impressions is None:
            raise ColipriError(
                f"{self.root} has no table of impressions ({', '.join(_IMPRESSIONS)})"
            )
        self.impressions = impressions
        self.text = next((name for name in _TEXT if name in impressions.columns), _TEXT[0])
        self.impressions.require([_KEY, self.text])
        self.mapping = self._find("study_mapping_*.tsv")
        self.splits = self._find("splits_*.tsv")
        self.labels = self._find("labels_*.tsv")
        columns = self.labels.columns if self.labels else []
        self.findings = {
            finding: name
            for finding, names in _LABELS.items()
            if (name := next((name for name in names if name in columns), None))
        }

    def finding_names(self) -> Sequence[str]:
        """The embolism labels that the label table has."""
        return list(self.findings)

    def cases(self) -> Iterator[SourceCase]:
        """One case per row of the impressions."""
        mapping = _by_impression(self.mapping, ["image_id", "person_id"])
        splits = _by_impression(self.splits, ["split"])
        labels = _by_impression(self.labels, list(self.findings.values()))
        for row in self.impressions.rows([_KEY, self.text]):
            where = f"{self.impressions.path.name}, row {row.number}"
            try:
                if row.problem:
                    raise ColipriError(row.problem)
                key = identifier(row.cells[_KEY], _KEY)
                found = mapping.get(key, {})
                if self.mapping is not None and not found:
                    raise ColipriError(f"the study mapping does not know the impression: {key}")
                image = identifier(found.get("image_id"), "image_id") or key
                image = image.removesuffix(".gz").removesuffix(".nii")
                cells = labels.get(key, {})
                yield SourceCase(
                    identifier=image,
                    row=where,
                    subject=identifier(found.get("person_id"), "person_id"),
                    study=key,
                    split=split_name(identifier(splits.get(key, {}).get("split"), "split")),
                    images=[self.root / "CTPA" / f"{image}.nii.gz"],
                    report={"impression": str(report_text(row.cells[self.text]))},
                    findings={f: _label(cells.get(n), n) for f, n in self.findings.items()},
                )
            except ColipriError as error:
                yield SourceCase("", where, problem=str(error))

    def _find(self, *patterns: str) -> TableFile | None:
        """The newest table of the first pattern that matches."""
        for pattern in patterns:
            found = sorted(self.root.glob(pattern))
            if found:
                return TableFile(found[-1])
        return None


def _by_impression(table: TableFile | None, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    if table is None:
        return {}
    rows = table.rows([_KEY, *columns])
    return {identifier(row.cells[_KEY], _KEY): row.cells for row in rows if not row.problem}


def _label(cell: Any, column: str) -> int | None:
    """The published cells are True, False, 1, 0 or Censored (unknown)."""
    return None if str(cell).strip().lower() in ("censored", "censor") else label(cell, column)
