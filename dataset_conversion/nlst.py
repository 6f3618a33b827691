"""NLST: low-dose screening CTs without reports, a few reconstructions of each exam."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase

# The study dates are coded: the second of January of the year that stands for the screening round.
_ROUNDS = {"19990102": "T0", "20000102": "T1", "20010102": "T2"}
_DATES = (re.compile(r"(\d{4})-?(\d{2})-?(\d{2})"), re.compile(r"(\d{2})-(\d{2})-(\d{4})"))
_ENDINGS = (".nii.gz", ".nii")
# Reconstruction filters of the four vendors in the trial (the codes of the trial's own tables, and
# what series descriptions call them). Soft ones show the mediastinum and the least noise.
_SOFT = (
    "STANDARD",
    "B20F",
    "B30F",
    "B31F",
    "B40F",
    "B35F",
    "FC01",
    "FC02",
    "FC10",
    "FC13",
    "C",
    "B",
)
_SHARP = ("BONE", "LUNG", "BODYFILTER", "B45F", "B50F", "B60F", "B70F", "B80F", "FC30", "FC50",
          "FC51", "FC52", "FC53", "FC82", "D")  # fmt: skip
_LOCALISER = re.compile(r"LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM", re.IGNORECASE)
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")


class Nlst(Converter):
    """Convert NLST (73,118 low-dose chest CT exams of 26,254 people; no reports).

        colipri_convert_dataset nlst -i /data/NLST -d 105 -n NLST

    SOURCE holds <patient>/<study>/*.nii.gz, one file per series, as the DICOM download is commonly
    converted (for the DICOM files themselves: colipri_convert_dataset dicom --keep_identifiers).
    <study> starts with the study date (19990102..., or 01-02-1999-... as TCIA's folders do); 1999,
    2000 and 2001 are the screening rounds T0, T1 and T2.

    At most --max_reconstructions per exam are kept: localisers and short series are skipped, then
    each kernel's series with the most slices is chosen, soft kernels first (sharp ones add noise,
    not content). The kernel is read from the file's name, where TCIA's series descriptions have it.
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
            help="per exam (default: %(default)s)",
        )
        parser.add_argument(
            "--min_slices",
            type=int,
            default=40,
            metavar="N",
            help="skip series with fewer slices (default: %(default)s)",
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


@dataclass(frozen=True)
class Reconstruction:
    """One series: its file, its kernel ("" if the name says nothing) and its number of slices."""

    file: Path
    kernel: str
    slices: int


def read_reconstruction(file: Path) -> Reconstruction:
    """The kernel from the name, the slices from the header.

    Raises:
        ColipriError: the header cannot be read, or the image is not a volume.
    """
    from colipri.imageio.reading import read_header

    header = read_header(file)
    if header.dimension != 3:
        raise ColipriError(f"the image is not a volume: {file} has size {header.shape}")
    return Reconstruction(file, kernel_of(file.name), int(header.shape[2]))


def kernel_of(name: str) -> str:
    """The reconstruction filter in a series description such as "0,OPL,GE,HSQX,STANDARD,350,2".

    Example:
        >>> kernel_of("2-0OPLGEHSQXSTANDARD350.nii.gz"), kernel_of("1_OPA_SE_VZOOM_B30f.nii.gz")
        ('STANDARD', 'B30F')
    """
    words = [word.upper() for word in _SEPARATORS.split(name)]
    known = (*_SOFT, *_SHARP)
    exact = [kernel for kernel in known if kernel in words]
    # File names from TCIA have lost their commas; single letters would then be found anywhere.
    within = [k for k in known if len(k) >= 4 and any(k in word for word in words)]
    found = exact or within
    return max(found, key=len) if found else ""


def choose(found: Sequence[Reconstruction], most: int, min_slices: int) -> dict[Path, str]:
    """File -> reason to skip it.

    Args:
        found: all reconstructions of one exam.
        most: the largest number to keep.
        min_slices: fewer slices are skipped."""
    reasons: dict[Path, str] = {}
    best: dict[str, Reconstruction] = {}
    for one in sorted(found, key=lambda r: (-r.slices, r.file.name)):
        if _LOCALISER.search(one.file.name):
            reasons[one.file] = "a localiser"
        elif one.slices < min_slices:
            reasons[one.file] = f"too few slices: {one.slices}, {min_slices} are needed"
        elif one.kernel in best and one.kernel:
            reasons[one.file] = f"not chosen, same kernel: {best[one.kernel].file.name}"
        else:
            best[one.kernel or one.file.name] = one
    ranked = sorted(best.values(), key=lambda r: (_rank(r.kernel), -r.slices, r.file.name))
    for one in ranked[most:]:
        reasons[one.file] = f"not chosen, {most} others of the exam: {ranked[0].file.name}"
    return reasons


def _rank(kernel: str) -> int:
    """Soft, then unknown, then sharp."""
    return 0 if kernel in _SOFT else 2 if kernel in _SHARP else 1
