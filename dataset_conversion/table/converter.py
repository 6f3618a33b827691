"""A table of your own: one row per scan, columns named by you."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from colipri.common.errors import ColipriError
from colipri.dataset_conversion.base.converter import Converter
from colipri.dataset_conversion.base.source_case import SourceCase, image_stem, inside, split_name
from colipri.dataset_conversion.table.cells import (
    identifier,
    identifier_or_date,
    label,
    report_text,
)
from colipri.dataset_conversion.table.file import TableFile, TableRow


class Table(Converter):
    """Convert a table with one row per scan: CSV, TSV, JSON lines, Parquet or Excel.

        colipri_convert_dataset table -i scans.csv -d 101 -n ChestCT --image path --report report
        colipri_convert_dataset table -i scans.xlsx -d 101 -n ChestCT --image file \\
            --sections findings=Findings_EN impression=Impressions_EN \\
            --subject patient --study accession --split split --labels Nodule Effusion

    Name the columns. Paths of images and reports are absolute, or relative to the table's folder
    (--root: another one). An image is a file, or a folder with one DICOM series. A row without
    report is an image-only case. Quoted reports may contain commas, quotes and line breaks; UTF-8,
    UTF-16 and Windows-1252 are recognised. Without --case a scan is named after its file.

    Licence and access terms are those of your data.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.table = TableFile(options.i, options.encoding, options.delimiter, options.sheet)
        self.sections = parse_sections(options.sections)
        channels = options.channel_names
        if len(channels) != len(options.image):
            raise ColipriError(
                f"{len(options.image)} image columns need as many --channel_names, not "
                f"{len(channels)}"
            )
        self.channel_names = {str(number): name for number, name in enumerate(channels)}
        self.root = (options.root or options.i.parent).absolute()
        single = (options.case, options.subject, options.study, options.split)
        reports = (options.report, options.report_file, *self.sections.values())
        wanted = [*options.image, *single, *reports, *options.labels]
        self.columns = list(dict.fromkeys(name for name in wanted if name))
        self.table.require(self.columns)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """The names of the columns, and how to read the file."""
        add_column_arguments(parser)
        add_reading_arguments(parser)

    def finding_names(self) -> Sequence[str]:
        """The label columns."""
        return list(self.options.labels)

    def cases(self) -> Iterator[SourceCase]:
        """One case per row."""
        for row in self.table.rows(self.columns):
            where = f"{self.table.path.name}, row {row.number}"
            if row.problem:
                yield SourceCase("", where, problem=row.problem)
                continue
            try:
                yield self._case(row, where)
            except ColipriError as error:
                yield SourceCase("", where, problem=str(error))

    def _case(self, row: TableRow, where: str) -> SourceCase:
        options, cells = self.options, row.cells
        images = [inside(self.root, identifier(cells.get(c), c), c) for c in options.image]
        named = {
            name: identifier_or_date(cells.get(getattr(options, name)), getattr(options, name))
            for name in ("study", "split")
            if getattr(options, name)
        }
        return SourceCase(
            identifier=identifier(cells.get(options.case), options.case or "")
            or image_stem(images[0]),
            row=where,
            subject=identifier(cells.get(options.subject), options.subject or ""),
            study=named.get("study", ""),
            split=split_name(named.get("split", "")),
            images=images,
            report=self._report(row),
            findings={name: label(cells.get(name), name) for name in options.labels},
        )

    def _report(self, row: TableRow) -> str | Mapping[str, str] | Path | None:
        options, cells = self.options, row.cells
        if options.report_file:
            name = identifier(cells.get(options.report_file), options.report_file)
            return inside(self.root, name, options.report_file) if name else None
        if self.sections:
            texts = {name: report_text(cells.get(c)) for name, c in self.sections.items()}
            return {name: str(value) for name, value in texts.items()}
        return report_text(cells.get(options.report)) if options.report else None


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Which column holds what."""
    columns = parser.add_argument_group("columns of the table")
    columns.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="COLUMN",
        help="path of the image (one column per channel)",
    )
    report = columns.add_mutually_exclusive_group()
    report.add_argument("--report", metavar="COLUMN", help="text of the report")
    report.add_argument("--report_file", metavar="COLUMN", help="path of a .txt or .json report")
    report.add_argument(
        "--sections",
        nargs="+",
        default=[],
        metavar="SECTION=COLUMN",
        help="a report in several columns, e.g. findings=Findings_EN impression=Impressions_EN",
    )
    for name, text in (
        ("case", "name of the scan (default: that of its file)"),
        ("subject", "patient (default: one patient per scan)"),
        ("study", "scans of one study share the report (default: one study per scan)"),
        ("split", "train, val or test"),
    ):
        columns.add_argument(f"--{name}", metavar="COLUMN", help=text)
    columns.add_argument(
        "--labels", nargs="+", default=[], metavar="COLUMN", help="findings: 1, 0 or empty"
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How the file is to be read."""
    reading = parser.add_argument_group("reading the table")
    reading.add_argument("--root", type=Path, metavar="FOLDER", help="where relative paths start")
    reading.add_argument("--encoding", default="", metavar="NAME", help="default: detected")
    reading.add_argument("--delimiter", default="", metavar="X", help="of CSV; default: detected")
    reading.add_argument("--sheet", default="", metavar="NAME", help="of Excel; default: the first")
    reading.add_argument(
        "--channel_names", nargs="+", default=["CT"], metavar="NAME", help="default: CT"
    )


def parse_sections(given: list[str]) -> dict[str, str]:
    """["findings=Findings_EN"] -> {"findings": "Findings_EN"}.

    Raises:
        ColipriError: not of this form, or a section twice.
    """
    sections: dict[str, str] = {}
    for item in given:
        name, equals, column = item.partition("=")
        if not (name and equals and column) or name in sections:
            raise ColipriError(f"--sections '{item}': give each section once, as findings=COLUMN")
        sections[name] = column
    return sections
