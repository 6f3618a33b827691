"""CT-RATE's folders, names and tables, as published."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.table.cells import text
from colipri.dataset_conversion.table.file import TableFile

FINDINGS = (
    "Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion",
    "Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema",
    "Atelectasis", "Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela",
    "Pleural effusion", "Mosaic attenuation pattern", "Peribronchial thickening", "Consolidation",
    "Bronchiectasis", "Interlobular septal thickening",
)  # fmt: skip
METADATA = (
    "XYSpacing", "ZSpacing", "RescaleSlope", "RescaleIntercept", "ImagePositionPatient",
    "ImageOrientationPatient", "Rows", "Columns",
)  # fmt: skip
_SECTIONS = {
    "clinical_information": "ClinicalInformation_EN",
    "technique": "Technique_EN",
    "findings": "Findings_EN",
    "impression": "Impressions_EN",
}
_EMPTY_REPORT = ("", "not given.", "not given", "nan")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
SPLITS = ("train", "valid")
_NAME = re.compile(r"(train|valid)_(\d+)_([a-z]+)_(\d+)")
# Reported by those who read every volume (RadFinder): headers that cannot be inverted, or a few
# slices. Images are not opened when they are only referenced, so they are named here.
_BROKEN = re.compile(r"train_(11755_a_[234]|1267_a_4|9792_a_\d+|3821_a_5)")


@dataclass(frozen=True)
class Volume:
    """A row of the report table: volume name without ending, its sections, what is wrong."""

    volume: str
    where: str
    sections: Mapping[str, str]
    problem: str


def read_reports(root: Path, split: str) -> Iterator[Volume]:
    """Every row of the report table, streamed.

    Raises:
        ColipriError: the table or a column is missing.
    """
    table = _table(root / "radiology_text_reports", _spellings(split, "reports"))
    table.require(["VolumeName", "Findings_EN", "Impressions_EN"])
    known = [name for name in _SECTIONS.values() if name in table.columns]
    for row in table.rows(["VolumeName", *known]):
        where = f"{table.path.name}, row {row.number}"
        sections = {
            section: value
            for section, column in _SECTIONS.items()
            if (value := text(row.cells.get(column))).lower() not in _EMPTY_REPORT
        }
        yield Volume(stem(text(row.cells.get("VolumeName"))), where, sections, row.problem)


def finding_names(root: Path, splits: Sequence[str]) -> Sequence[str]:
    """The 18 findings, if any part has a label table."""
    return FINDINGS if any(_labels_file(root, split) for split in splits) else ()


def read_labels(root: Path, split: str) -> dict[str, dict[str, Any]]:
    """Volume -> finding -> cell; empty without the table."""
    path = _labels_file(root, split)
    return _by_volume(TableFile(path), FINDINGS) if path else {}


def read_metadata(root: Path, split: str) -> dict[str, dict[str, Any]]:
    """Volume -> column -> cell.

    Raises:
        ColipriError: the table or a column is missing.
    """
    return _by_volume(_table(root / "metadata", _spellings(split, "metadata")), METADATA)


def numbers(cell: Any) -> list[float]:
    """All numbers of a cell, however it is bracketed or quoted.

    Example:
        >>> numbers("[0.34, 0.34]"), numbers("['-172', '-1.5e2', '3']"), numbers("")
        ([0.34, 0.34], [-172.0, -150.0, 3.0], [])
    """
    return [float(match) for match in _NUMBER.findall(text(cell))]


def stem(name: str) -> str:
    """ "train_1_a_1.nii.gz" -> "train_1_a_1"."""
    return name.removesuffix(".gz").removesuffix(".nii")


def _by_volume(table: TableFile, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        stem(text(row.cells["VolumeName"])): {name: row.cells[name] for name in columns}
        for row in table.rows(["VolumeName", *columns])
        if not row.problem
    }


def _labels_file(root: Path, split: str) -> Path | None:
    names = _spellings(split, "predicted_labels")
    paths = [root / "multi_abnormality_labels" / name for name in names]
    return next((path for path in paths if path.is_file()), None)


def _table(folder: Path, names: Sequence[str]) -> TableFile:
    for name in names:
        if (folder / name).is_file():
            return TableFile(folder / name)
    raise ColipriError(f"{folder / names[0]} is missing; download it as well")


def _spellings(split: str, kind: str) -> list[str]:
    """The published tables call the same part "valid" here and "validation" there."""
    spelled = ["train"] if split == "train" else ["validation", "valid"]
    return [f"{name}_{kind}.csv" for name in spelled]


class CtRateFolder:
    """A downloaded CT-RATE.

    Raises:
        ColipriError: the folder is something else, or another release than asked for.
    """

    def __init__(self, source: Path, version: str) -> None:
        inner = source / "dataset"
        self.root = inner if inner.is_dir() else source
        self.ending = "_fixed" if version == "v2" else ""
        if not (self.root / "radiology_text_reports").is_dir():
            raise ColipriError(
                f"{source} is not CT-RATE: it has no (dataset/)radiology_text_reports folder"
            )
        if not any((self.root / f"{split}{self.ending}").is_dir() for split in SPLITS):
            other = "v1" if version == "v2" else "v2"
            raise ColipriError(
                f"{self.root} has no folder train{self.ending} or valid{self.ending}; if it is the "
                f"other release: --version {other}"
            )

    def splits(self, wanted: Sequence[str] | None) -> list[str]:
        """The parts to convert: those asked for, or those with images."""
        there = [split for split in SPLITS if (self.root / f"{split}{self.ending}").is_dir()]
        missing = [split for split in wanted or [] if split not in there]
        if missing:
            raise ColipriError(f"{self.root} has no folder {missing[0]}{self.ending}")
        return [split for split in there if not wanted or split in wanted]

    def image(self, split: str, volume: str) -> Path:
        """{split}/{split_p}/{split_p_s}/{split_p_s_r}.nii.gz"""
        patient, study = self.patient_and_study(volume, split)
        return self.root / f"{split}{self.ending}" / patient / study / f"{volume}.nii.gz"

    def patient_and_study(self, volume: str, split: str) -> tuple[str, str]:
        """ "train_1_a_2" -> "train_1", "train_1_a"."""
        match = _NAME.fullmatch(volume)
        if match is None or match[1] != split:
            raise ColipriError(f"this is not the name of a {split} volume: '{volume}'")
        return f"{match[1]}_{match[2]}", f"{match[1]}_{match[2]}_{match[3]}"

    def no_chest(self, split: str) -> set[str]:
        """Volumes or studies that show no chest."""
        path = self.root / "metadata" / f"no_chest_{split}.txt"
        if not path.is_file():
            raise ColipriError(
                f"{path} is missing, so head CTs cannot be skipped; download it, or keep them "
                "with --with_no_chest"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return {stem(line.strip().split("/")[-1]) for line in lines if line.strip()}

    def reason_to_skip(self, volume: str, study: str, excluded: set[str]) -> str:
        """Return the reason to skip a volume; "" to keep it.

        Args:
            volume: its name.
            study: its study.
            excluded: names of volumes to leave out.
        """
        if volume in excluded or study in excluded:
            return "no chest CT (metadata/no_chest list)"
        return "known to be broken" if _BROKEN.fullmatch(volume) else ""
