"""colipri_classify: a table of findings for scans, by a head of colipri_probe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, named
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import check_output
from colipri.run.tables import format_table

DESCRIPTION = """\
Classify scans with a head that colipri_probe saved: calibrated probabilities of its findings.

    colipri_classify -m RUN_FOLDER/heads/Dataset101_ChestCT_attentive.safetensors -i SCANS_FOLDER \\
                     -o findings.csv --page findings.html

The CSV has a row per scan and two columns per finding: its probability, and 1 or 0 by the threshold
that validation chose (empty where it could not choose one). The page shows the same with how good
the head was on patients that it never saw. The encoder's checkpoint is looked for beside the head's
folder and where it was. Exit code 1 if a scan could not be read; the others are classified.
For research; not a medical device.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_classify", DESCRIPTION)
    parser.add_argument("-m", required=True, metavar="HEAD", help="a .safetensors of colipri_probe")
    parser.add_argument(
        "-i", required=True, metavar="INPUT", help="image, folder of images, or DICOM folder"
    )
    parser.add_argument("-o", metavar="FILE.csv", help="the table")
    parser.add_argument("--page", metavar="FILE.html", help="the same as a page")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="of the encoder, if it is not where it was"
    )
    parser.add_argument(
        "-device", default="auto", help="cuda, cpu or mps (default: the best available)"
    )
    parser.add_argument(
        "--no_checks",
        action="store_true",
        help="score scans that colipri_verify_dataset would call wrong with a warning, instead of "
        "refusing them",
    )
    return parser


def classify(options: argparse.Namespace) -> int:
    """Classify, write the table and the page, print what is present."""
    from colipri.probing.classify import Classifier, csv_table, strongest_findings

    output = check_output(options.o, (".csv",))
    page = check_output(options.page, (".html", ".htm"))
    classifier = Classifier(
        options.m, options.checkpoint, options.device, refuse_wrong_scans=not options.no_checks
    )
    result = classifier.classify(options.i)
    if output is not None:
        _write_csv(output, csv_table(result))
    if page is not None:
        from colipri.reporting.classification_page import write_classification_page

        write_classification_page(result, page)
    rows = []
    for image in result.images:
        present = strongest_findings(image, result.findings)
        shown = ", ".join(f"{name} {image.probabilities[name]:.2f}" for name in present)
        rows.append([image.image, shown or "nothing"])
    print(format_table(["image", "called present"], rows))
    for written in (output, page):
        if written is not None:
            print(written)
    for name, problem in result.problems.items():
        print(f"colipri_classify: error: {named(name, problem)}", file=sys.stderr)
    return EXIT_PROBLEM if result.problems else EXIT_OK


def _write_csv(output: object, rows: Sequence[Sequence[str]]) -> None:
    import csv
    import io
    from pathlib import Path

    from colipri.common.atomic import atomic_write_text

    assert isinstance(output, Path)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_write_text(output, text.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_classify."""
    return run_command(build_parser(), classify, arguments)
