"""colipri_report: one self-contained HTML page about a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from colipri.common.errors import EXIT_OK
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import check_output

DESCRIPTION = """\
Write one HTML page about a trained model. It needs no other file and loads nothing from anywhere.

    FOLD=$colipri_results/Dataset101_ChestCT/ColipriTrainer_C__colipriPlans__3d_lowres/fold_0
    colipri_report $FOLD

Shown is what the folder holds: fingerprint, plan with reasons, training curves, zero_shot*.json
(ROC curves and all metrics, with controls) and retrieval*.json. Write those there first:

    colipri_zero_shot -m $FOLD/checkpoint_best.pth -d 101 --control_untrained \\
                      -o $FOLD/zero_shot_test.json
    colipri_retrieve -m $FOLD/checkpoint_best.pth -d 101 -o $FOLD/retrieval_test.json

The page holds no report text of any patient.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = make_parser("colipri_report", DESCRIPTION)
    parser.add_argument("folder", metavar="RESULTS_FOLDER", help="the folder of a fold")
    parser.add_argument("-o", metavar="FILE.html", help="default: report.html in the folder")
    parser.add_argument("--title", help="instead of the data set's name")
    return parser


def report(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from colipri.evaluation.html_report import write_report

    output = check_output(options.o, (".html", ".htm"))
    print(write_report(options.folder, output, title=options.title))
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_report."""
    return run_command(build_parser(), report, arguments)
