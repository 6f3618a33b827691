"""DICOM archives: series found, checked and written as NIfTI, with hashed identifiers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase
from colipri.dataset_conversion.base.target import Target
from colipri.dataset_conversion.dicom.identifiers import Identifiers, private_folder

if TYPE_CHECKING:
    from colipri.dataset_conversion.dicom.source import Scan, StudyReports
    from colipri.imageio.dicom.series import Series


class Dicom(Converter):
    """Convert a folder, or a zip or tar archive, of DICOM series with or without reports.

        colipri_convert_dataset dicom -i /data/export -d 101 -n ChestCT

    Series are found by their headers, whatever their files are called, sorted by position and
    written as .nii.gz in HU; a tilted gantry is straightened. Skipped, each with its reason:
    localisers, secondary captures, derived series, other modalities. Problems (--keep_going skips
    them too): missing or duplicate slices, mixed series, pixels that cannot be decoded.

    Reports are structured reports (SR) of the same study, and text files (.txt, .json) named after
    study UID, accession number or patient, or called report.txt next to the images of one study.

    Patients, studies and series get names hashed with a secret salt: $colipri_salt, --salt FILE, or
    one that is created once in $colipri_raw/private/DatasetXXX_Name, where identifiers.csv
    maps them back to the source. That folder is private: do not share it. Names in the text of
    reports are not removed. Licence and access terms are those of your archive.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.channel_names = {"0": options.modalities[0]}
        self._target: Target | None = None
        self._reports: StudyReports | None = None
        self._identifiers: Identifiers | None = None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """--modalities, --with_derived, --min_slices, --salt and --keep_identifiers."""
        add_dicom_arguments(parser)

    def convert(self, target: Target) -> int:
        """Convert, and write the list of identifiers next to the data set."""
        self._target = target
        return super().convert(target)

    def cases(self) -> Iterator[SourceCase]:
        """Every series, and every file that belongs to none."""
        from colipri.dataset_conversion.dicom.images import case_of_left_out
        from colipri.dataset_conversion.dicom.source import find_reports, scan_source
        from colipri.imageio.dicom.reports import is_report
        from colipri.imageio.dicom.series import find_series

        options = self.options
        processes = self._target.num_processes if self._target else 1
        scan = scan_source(options.i, processes, self.other_files)
        images = [instance for instance in scan.instances if not is_report(instance)]
        reports = [instance for instance in scan.instances if is_report(instance)]
        series, left_out = find_series(
            images,
            options.modalities,
            options.with_derived,
            options.min_slices,
            not_dicom=scan.left_out,
        )
        of_series = [instance for one in series for instance in one.instances]
        self._reports = find_reports(of_series, reports, scan.texts, options.i)
        identifiers = self._identifiers = self._make_identifiers()
        for item in [*scan.left_out, *left_out, *self._reports.left_out]:
            yield case_of_left_out(item, identifiers)
        yield from self._cases_of(series, scan, identifiers)
        identifiers.write_list()

    # What a data set made of DICOM files adds (see lidc.py).

    other_files: Sequence[str] = ()

    def findings_of(self, series: Series) -> Mapping[str, int | None]:
        """Labels of a series."""
        return {}

    def report_of(self, series: Series) -> Mapping[str, str] | None:
        """Sections of the report; None for an image-only case."""
        return self._reports.sections.get(series.instances[0].study) if self._reports else None

    def description(self) -> dict[str, Any]:
        """How the identifiers were made."""
        kept = self.options.keep_identifiers
        return {"identifiers": "as in the source" if kept else "hashed with a salt"}

    def case_of(self, series: Series) -> str:
        """The case's identifier."""
        assert self._identifiers is not None
        name = self._identifiers.name("series", series.uid)
        return f"{name}_{series.part}" if series.part else name

    def _make_identifiers(self) -> Identifiers:
        folder = self._target.folder if self._target else Path()
        options = self.options
        return Identifiers(private_folder(folder), options.salt, options.keep_identifiers)

    def _cases_of(
        self, series: Sequence[Series], scan: Scan, identifiers: Identifiers
    ) -> Iterator[SourceCase]:
        from colipri.dataset_conversion.dicom.images import in_place, volume_maker

        notes = self._reports.notes if self._reports else {}
        for one in series:
            first = one.instances[0]
            name = self.case_of(one)
            # A patient without identifier must still not be split between sides.
            patient = identifiers.name("patient", first.patient or f"of study {first.study}")
            study = identifiers.name("study", first.study)
            stays = in_place(one, scan.instances) if identifiers.keep else None
            noticed = [*(one.notes if stays else ()), notes.get(first.study, "")]
            yield SourceCase(
                identifier=name,
                row=f"{len(one.instances)} slices of {name}",
                subject=patient,
                study=study,
                images=[stays] if stays else sorted({i.file for i in one.instances}),
                make=None if stays else volume_maker(one, identifiers.keep),
                report=self.report_of(one),
                findings=self.findings_of(one),
                note="; ".join(
                    note for note in noticed if note
                ),  # an image written by ``make`` has its own
            )


def add_dicom_arguments(parser: argparse.ArgumentParser) -> None:
    """--modalities, --with_derived, --min_slices, --salt and --keep_identifiers."""
    parser.add_argument(
        "--modalities", nargs="+", default=["CT"], metavar="M", help="default: CT; e.g. CT MR"
    )
    parser.add_argument(
        "--with_derived", action="store_true", help="keep reformatted and projected series"
    )
    parser.add_argument(
        "--min_slices",
        type=int,
        default=10,
        metavar="N",
        help="skip series with fewer slices (default: %(default)s)",
    )
    parser.add_argument("--salt", type=Path, metavar="FILE", help="file that holds the secret salt")
    parser.add_argument(
        "--keep_identifiers",
        action="store_true",
        help="use the source's identifiers (for data that is public or already hashed); a "
        "folder that holds one sound series then stays where it is",
    )
