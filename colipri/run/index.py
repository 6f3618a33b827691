"""colipri_index: make an index of scans that colipri_retrieve searches in moments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.image_parts import (
    part_folder,
    part_of_images,
    shared_images,
    shares_images,
    write_part,
)
from colipri.run.inference_options import add_model_options, make_predictor
from colipri.run.local_processes import add_num_gpus_option, on_own_device
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.inference.inputs import ImageInput
    from colipri.retrieval.index import Entry
    from colipri.retrieval.indexing import Update

_SHOWN = 10  # names of scans that are gone
_PROBLEMS = "problems.json"  # of one of several processes
_KEPT = "finished scans are kept: run the same command again"

DESCRIPTION = """\
Encode scans once, so that they are found by text or by image in moments.

    colipri_index -m MODEL -d 101 -o INDEX              a data set, with its splits and labels
    colipri_index -m MODEL -d 101 -o INDEX --reports    and the beginning of each report
    colipri_index -m MODEL -i FOLDER -o INDEX           images and DICOM series of a folder
    colipri_index -m MODEL -d 101 -o INDEX -num_gpus 4  four processes, each on a GPU of its own

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
    add_num_gpus_option(parser)
    return parser


def index(options: argparse.Namespace, arguments: Sequence[str] = ()) -> int:
    """Find the scans, and encode those that the index lacks, here or in several processes."""
    if (options.i is None) == (options.d is None):
        raise ColipriError("give either -i (images) or -d (a data set)")
    if options.i is not None and (options.reports or options.split != "all"):
        raise ColipriError("--reports and --split need a data set (-d)")
    folder = Path(options.o)
    if folder.is_file():
        raise ColipriError(f"{folder} is a file; name a folder")

    from colipri.raw_dataset.dataset import load_raw_dataset
    from colipri.retrieval.index_processes import update_by_processes
    from colipri.retrieval.indexing import update_index

    if part_folder() is not None:
        return write_part(partial(_encode_share, options))
    whole = load_raw_dataset(options.d).name if options.d and options.split == "all" else ""
    if not shares_images(options):
        predictor = make_predictor(options)
        scans = _scans(options, predictor.num_channels)
        done = update_index(predictor, folder, scans, whole_dataset=whole)
        return _tell(options, done, predictor.image_only is None)
    predictor = make_predictor(argparse.Namespace(**{**vars(options), "device": "cpu"}))
    scans, speaks = _scans(options, predictor.num_channels), predictor.image_only is None
    del predictor  # the processes load it for themselves
    codes: list[int] = []
    run = partial(_run_processes, options, arguments, codes)
    shared = update_by_processes(folder, scans, run, whole_dataset=whole)
    return codes[0] if shared is None else _tell(options, shared, speaks)


def _scans(options: argparse.Namespace, num_channels: int) -> list[tuple[ImageInput, Entry]]:
    from colipri.retrieval.indexing import dataset_to_index, images_to_index

    if options.d is not None:
        return dataset_to_index(options.d, options.split, options.reports)
    return images_to_index(Path(options.i), num_channels)


def _run_processes(
    options: argparse.Namespace, arguments: Sequence[str], codes: list[int]
) -> list[str] | None:
    """Let several processes encode; what is wrong with which scan, None if they were stopped.

    Their exit code is added to ``codes``.
    """
    from colipri.common.atomic import read_json

    with shared_images(main, arguments, options, _KEPT) as (code, parts):
        codes.append(code)
        if code != EXIT_OK:
            return None
        return sorted(line for part in parts for line in read_json(part / _PROBLEMS))


def _encode_share(options: argparse.Namespace, folder: Path) -> None:
    """Encode the scans of this process, and write into ``folder`` what is wrong with which."""
    from colipri.common.atomic import atomic_write_json
    from colipri.retrieval.index_processes import encode_share

    predictor = make_predictor(on_own_device(options))
    scans = _scans(options, predictor.num_channels)
    problems = encode_share(predictor, Path(options.o), scans, *part_of_images())
    atomic_write_json(folder / _PROBLEMS, problems)


def _tell(options: argparse.Namespace, done: Update, speaks: bool) -> int:
    """Print what was done; ``speaks``: the model has a text encoder."""
    folder = Path(options.o)
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
    query = "pleural effusion" if speaks else "SCAN.nii.gz"
    following = command_line("colipri_retrieve", "-m", options.m, "--index", folder, "-q", query)
    print(f"\nNext: {following}")
    return EXIT_PROBLEM if done.problems else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_index."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(build_parser(), partial(index, arguments=given), given)
