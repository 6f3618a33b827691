"""colipri_index: make an index of scans that colipri_retrieve searches in moments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, make_predictor
from colipri.run.next_command import command_line

_SHOWN = 10  # names of scans that are gone

DESCRIPTION = """\
Encode scans once, so that they are found by text or by image in moments.

    colipri_index -m MODEL -d 101 -o INDEX              a data set, with its splits and labels
    colipri_index -m MODEL -d 101 -o INDEX --reports    and the beginning of each report
    colipri_index -m MODEL -i FOLDER -o INDEX           images and DICOM series of a folder

Run it again whenever scans were added or deleted: only what is new or has changed is encoded, and
what is gone is named and removed. Several data sets and folders may share an index. An interruption
loses at most the scans of the current part, and two processes cannot write to one index at once.
The index holds embeddings, paths and what cases.csv says; report text only with --reports.
Exit code 1 if a scan could not be read; the others are in the index.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_index", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    parser.add_argument("-d", metavar="DATASET", help="number or name of a data set")
    parser.add_argument(
        "--split",
        default="all",
        choices=("train", "val", "test", "all"),
        help="with -d, as in cases.csv (default: %(default)s)",
    )
    parser.add_argument(
        "--reports", action="store_true", help="with -d: store the beginning of each report"
    )
    parser.add_argument("-o", required=True, metavar="INDEX", help="folder of the index")
    return parser


def index(options: argparse.Namespace) -> int:
    """Find the scans, and encode those that the index lacks."""
    if (options.i is None) == (options.d is None):
        raise ColipriError("give either -i (images) or -d (a data set)")
    if options.i is not None and (options.reports or options.split != "all"):
        raise ColipriError("--reports and --split need a data set (-d)")
    folder = Path(options.o)
    if folder.is_file():
        raise ColipriError(f"{folder} is a file; name a folder")

    from colipri.raw_dataset.dataset import load_raw_dataset
    from colipri.retrieval.indexing import dataset_to_index, images_to_index, update_index

    predictor = make_predictor(options)
    if options.d is not None:
        scans = dataset_to_index(options.d, options.split, options.reports)
    else:
        scans = images_to_index(Path(options.i), predictor.num_channels)
    whole = load_raw_dataset(options.d).name if options.d and options.split == "all" else ""
    done = update_index(predictor, folder, scans, whole_dataset=whole)
    print(
        f"{folder}: {len(done.index.entries)} scans; {done.added} added, {done.changed} changed, "
        f"{done.unchanged} were there"
    )
    if done.restored:
        print(f"{done.restored} scans are back as they were")
    if done.removed:
        shown = ", ".join(done.removed[:_SHOWN])
        more = f" and {len(done.removed) - _SHOWN} more" if len(done.removed) > _SHOWN else ""
        print(f"{len(done.removed)} scans are gone and were removed: {shown}{more}")
    for problem in done.problems:
        print(f"colipri_index: error: {problem}", file=sys.stderr)
    query = "pleural effusion" if predictor.image_only is None else "SCAN.nii.gz"
    following = command_line("colipri_retrieve", "-m", options.m, "--index", folder, "-q", query)
    print(f"\nNext: {following}")
    return EXIT_PROBLEM if done.problems else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_index."""
    return run_command(build_parser(), index, arguments)
