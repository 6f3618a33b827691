"""colipri_report: one self-contained HTML page about a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import check_output

if TYPE_CHECKING:
    from colipri.common.page_parts import Section

DESCRIPTION = """\
Write one HTML page about a trained model. It needs no other file and loads nothing from elsewhere.

    FOLD=$colipri_results/Dataset101_ChestCT/ColipriTrainer_C__colipriPlans__3d_lowres/fold_0
    colipri_report $FOLD

The page shows what the folder holds: results beside their controls (zero_shot*.json and
retrieval*.json), training curves, the data, and the plan with its reasons. Write the results first:

    colipri_zero_shot -m $FOLD/checkpoint_best.pth -d 101 --control_untrained \\
                      -o $FOLD/zero_shot_test.json
    colipri_retrieve -m $FOLD/checkpoint_best.pth -d 101 -o $FOLD/retrieval_test.json

The page contains no report text of any patient unless you give --show_reports.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_report", DESCRIPTION)
    parser.add_argument("folder", metavar="RESULTS_FOLDER", help="the folder of a fold")
    parser.add_argument("-o", metavar="FILE.html", help="default: report.html in the folder")
    parser.add_argument("--title", help="instead of the data set's name")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="also show unseen scans with text heat maps, training scans, and what the objectives "
        "show of themselves, such as reconstructions (reads the best checkpoint and the data set)",
    )
    parser.add_argument(
        "--show_reports",
        action="store_true",
        help="with --pictures: print patients' reports beside their scans, and the model's own",
    )
    parser.add_argument(
        "-device", default="auto", help="for --pictures: cuda, cpu or mps (default: the best)"
    )
    return parser


def report(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from colipri.reporting.report import picture_sections, write_report

    if options.show_reports and not options.pictures:
        raise ColipriError("--show_reports needs --pictures")
    output = check_output(options.o, (".html", ".htm"))
    pictures: list[Section] = []
    if options.pictures:
        pictures = picture_sections(
            options.folder, options.device, show_reports=options.show_reports
        )
    print(write_report(options.folder, output, pictures, title=options.title))
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_report."""
    return run_command(build_parser(), report, arguments)
