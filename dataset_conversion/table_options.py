"""The arguments of the table converter."""

from __future__ import annotations

import argparse
from pathlib import Path

from colipri.common.errors import ColipriError


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Which column holds what."""
    columns = parser.add_argument_group("columns of the table")
    columns.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="COLUMN",
        help="path of the image (one a channel)",
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
        ("subject", "patient (default: every scan is a patient of its own)"),
        ("study", "scans of one study share the report (default: a study each)"),
        ("split", "train, val or test"),
    ):
        columns.add_argument(f"--{name}", metavar="COLUMN", help=text)
    columns.add_argument(
        "--labels", nargs="+", default=[], metavar="COLUMN", help="findings: 1, 0 or empty"
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How the file is to be read."""
    reading = parser.add_argument_group("reading the table")
    reading.add_argument(
        "--root", type=Path, metavar="FOLDER", help="what relative paths start from"
    )
    reading.add_argument("--encoding", default="", metavar="NAME", help="default: found out")
    reading.add_argument("--delimiter", default="", metavar="X", help="of CSV; default: found out")
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
