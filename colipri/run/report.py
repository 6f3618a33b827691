"""colipri_report: one self-contained HTML page about a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import check_output

if TYPE_CHECKING:
    from colipri.evaluation.html_page import Section

DESCRIPTION = """\
Write one HTML page about a trained model. It needs no other file and loads nothing from anywhere.

    FOLD=$colipri_results/Dataset101_ChestCT/ColipriTrainer_C__colipriPlans__3d_lowres/fold_0
    colipri_report $FOLD

Shown is what the folder holds: fingerprint, plan with reasons, training curves, zero_shot*.json
(ROC curves and all metrics, with controls) and retrieval*.json. Write those there first:

    colipri_zero_shot -m $FOLD/checkpoint_best.pth -d 101 --control_untrained \\
                      -o $FOLD/zero_shot_test.json
    colipri_retrieve -m $FOLD/checkpoint_best.pth -d 101 -o $FOLD/retrieval_test.json

The page holds no report text of any patient, unless --show_reports is given.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = make_parser("colipri_report", DESCRIPTION)
    parser.add_argument("folder", metavar="RESULTS_FOLDER", help="the folder of a fold")
    parser.add_argument("-o", metavar="FILE.html", help="default: report.html in the folder")
    parser.add_argument("--title", help="instead of the data set's name")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="show scans, text heat maps and, after training with objective M, reconstructions of "
        "hidden tokens as well (reads the best checkpoint and the data set)",
    )
    parser.add_argument(
        "--show_reports",
        action="store_true",
        help="with --pictures: print patients' reports beside their scans",
    )
    parser.add_argument(
        "-device", default="auto", help="for --pictures: cuda, cpu or mps (default: the best)"
    )
    return parser


def report(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from colipri.evaluation.html_report import write_report

    if options.show_reports and not options.pictures:
        raise ColipriError("--show_reports needs --pictures")
    output = check_output(options.o, (".html", ".htm"))
    pictures = _pictures(options) if options.pictures else []
    print(write_report(options.folder, output, pictures, title=options.title))
    return EXIT_OK


def _pictures(options: argparse.Namespace) -> list[Section]:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.inference.report_pictures import picture_sections

    folder = Path(options.folder)
    names = ("checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_latest.pth")
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ColipriError(f"--pictures needs a checkpoint, and {folder} holds none")
    predictor = ColipriPredictor.from_checkpoint(found, options.device)
    dataset = predictor.plans.dataset_name
    return picture_sections(predictor, dataset, show_reports=options.show_reports)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_report."""
    return run_command(build_parser(), report, arguments)
