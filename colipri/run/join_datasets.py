"""colipri_join_datasets: several data sets under one number."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next

DESCRIPTION = """\
Join data sets into a collection, which all commands accept like any other data set. Nothing is
copied: the collection is a dataset.json that lists its members.

    colipri_join_datasets -d 101 201 -o 901 -n Chest
    colipri_plan_and_preprocess -d 901

Members must have the same channels (the same modality), and findings that mean the same must have
the same name; a finding that a member does not have is unknown in its cases. In a collection, case,
subject and study names start with the member's number (101_...), so that they never collide. To add
members later, join again under another number.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_join_datasets", DESCRIPTION)
    parser.add_argument(
        "-d", nargs="+", required=True, metavar="DATASET", help="members: numbers or names"
    )
    parser.add_argument(
        "-o", type=int, required=True, metavar="NUMBER", help="the collection's number, e.g. 901"
    )
    parser.add_argument("-n", required=True, metavar="NAME", help="the collection's name")
    return parser


def join(options: argparse.Namespace) -> int:
    """Write the collection and log what it contains."""
    import logging

    from colipri.raw_dataset.collection import findings_unknown_in, join_datasets
    from colipri.raw_dataset.dataset import load_raw_dataset

    logger = logging.getLogger("colipri")
    folder = join_datasets(options.d, options.o, options.n)
    dataset = load_raw_dataset(folder)
    paired = sum(case.report is not None for case in dataset.cases)
    logger.info(
        "%s joins %d data sets: %d cases of %d subjects, %d of them with a report",
        folder.name,
        len(options.d),
        len(dataset.cases),
        len({case.subject for case in dataset.cases}),
        paired,
    )
    for member, unknown in findings_unknown_in(folder).items():
        logger.info("Unknown in all cases of %s: %s", member, ", ".join(unknown))
    say_next("colipri_verify_dataset", "-d", options.o)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_join_datasets."""
    return run_command(build_parser(), join, arguments)
