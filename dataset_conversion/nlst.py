"""NLST: low-dose screening CTs without reports, a few reconstructions of each exam."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base import Converter, SourceCase
from colipri.dataset_conversion.nlst_reconstructions import (
    Reconstruction,
    choose,
    read_reconstruction,
)

# The study dates are coded: the second of January of the year that stands for the screening round.
_ROUNDS = {"19990102": "T0", "20000102": "T1", "20010102": "T2"}
_DATES = (re.compile(r"(\d{4})-?(\d{2})-?(\d{2})"), re.compile(r"(\d{2})-(\d{2})-(\d{4})"))
_ENDINGS = (".nii.gz", ".nii")


class Nlst(Converter):
    """Convert NLST (73,118 low-dose chest CT exams of 26,254 people; no reports).

        colipri_convert_dataset nlst -i /data/NLST -d 105 -n NLST

    SOURCE holds <patient>/<study>/*.nii.gz, one file a series, as the DICOM download is commonly
    converted (for the DICOM files themselves: colipri_convert_dataset dicom --keep_identifiers).
    <study> begins with the study date (19990102..., or 01-02-1999-... as TCIA's folders do); 1999,
    2000 and 2001 are the screening rounds T0, T1 and T2.

    Of each exam at most --max_reconstructions are kept: localisers and short series are left out,
    then the series with most slices of each kernel, soft kernels first (sharp ones add noise, not
    content). The kernel is read from the file's name, where TCIA's series descriptions have it.
    Only headers are read for this.

    Licence: CC BY 4.0; access: images from TCIA (or IDC) without application, clinical data by
    application at CDAS.
    """

    licence = "CC BY 4.0"
    reference = "National Lung Screening Trial Research Team, TCIA 2013, doi:10.7937/TCIA.HMQ8-J677"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--max_reconstructions and --min_slices."""
        parser.add_argument(
            "--max_reconstructions",
            type=int,
            default=2,
            metavar="N",
            help="of one exam (default: %(default)s)",
        )
        parser.add_argument(
            "--min_slices",
            type=int,
            default=40,
            metavar="N",
            help="series of fewer slices are left out (default: %(default)s)",
        )

    def cases(self) -> Iterator[SourceCase]:
        """Every image of every exam."""
        if self.options.max_reconstructions < 1:
            raise ColipriError("--max_reconstructions must be at least 1")
        patients = sorted(folder for folder in self.options.i.iterdir() if folder.is_dir())
        if not patients:
            raise ColipriError(f"{self.options.i} has no folders <patient>/<study>/*.nii.gz")
        for patient in patients:
            for study in sorted(folder for folder in patient.iterdir() if folder.is_dir()):
                yield from self._exam(patient, study)

    def description(self) -> dict[str, Any]:
        """How many reconstructions of an exam there may be."""
        return {"max_reconstructions": self.options.max_reconstructions}

    def _exam(self, patient: Path, study: Path) -> Iterator[SourceCase]:
        round_ = _ROUNDS.get(study_date(study.name), study.name)
        exam = f"{patient.name}_{round_}"
        files = sorted(f for f in study.iterdir() if f.name.lower().endswith(_ENDINGS))
        if not files:
            yield SourceCase(exam, f"{patient.name}/{study.name}", skipped="the exam has no images")
            return
        found: list[Reconstruction] = []
        for file in files:
            try:
                found.append(read_reconstruction(file))
            except ColipriError as error:
                yield SourceCase(file.name, _where(file), problem=str(error))
        reasons = choose(found, self.options.max_reconstructions, self.options.min_slices)
        for one in found:
            name = one.file.name.removesuffix(".gz").removesuffix(".nii")
            yield SourceCase(
                identifier=f"{exam}_{name}"
                if round_ == study.name
                else f"{exam}_{_tail(study, name)}",
                row=_where(one.file),
                subject=patient.name,
                study=f"{patient.name}_{study.name}",
                images=[one.file],
                skipped=reasons.get(one.file, ""),
                note=f"kernel {one.kernel}, {one.slices} slices",
            )


def study_date(name: str) -> str:
    """ "19990102-1.2.840" or "01-02-1999-NLST-LSS-123" -> "19990102"; "" without a date."""
    iso = _DATES[0].match(name)
    if iso:
        return "".join(iso.groups())
    american = _DATES[1].match(name)
    return f"{american[3]}{american[1]}{american[2]}" if american else ""


def _tail(study: Path, name: str) -> str:
    """Two studies of a round are told apart by their whole name."""
    rivals = [f for f in study.parent.iterdir() if study_date(f.name) == study_date(study.name)]
    return f"{study.name}_{name}" if len(rivals) > 1 else name


def _where(file: Path) -> str:
    return "/".join(file.parts[-3:])
