"""colipri_extract_fingerprint: read all images and reports of a data set, write what plans need."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from colipri.common.cluster import cluster
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next
from colipri.run.planning_options import (
    add_cluster_options,
    add_dataset_option,
    add_process_options,
    check_processes,
    warn_of_known_errors,
)

DESCRIPTION = """\
Read every image and report of a raw data set once and write dataset_fingerprint.json: spacings,
shapes and physical extents of the body, intensities, lengths and vocabulary of the reports.

    colipri_extract_fingerprint -d 101 -np 8

Only training and validation cases count; held-out cases never influence a plan. If the command is
killed and run again, it reads only cases that are missing or whose files have changed.
colipri_plan_and_preprocess does this, planning and preprocessing in one command.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_extract_fingerprint", DESCRIPTION)
    add_dataset_option(parser)
    add_process_options(parser)
    add_cluster_options(parser)
    return parser


def extract(options: argparse.Namespace) -> int:
    """Fingerprint each data set."""
    import logging

    from colipri.experiment_planning.fingerprint import (
        extract_fingerprint,
        fingerprint_path,
        summarize_fingerprint,
    )

    check_processes(options.np)
    logger = logging.getLogger("colipri")
    for dataset in options.d:
        warn_of_known_errors(dataset)
        with cluster(options.backend, options.scheduler):
            fingerprint = extract_fingerprint(dataset, options.np, options.keep_going)
        logger.info("%s", summarize_fingerprint(fingerprint))
        name = fingerprint["dataset_name"]
        logger.info("Written to %s", fingerprint_path(name))
        say_next("colipri_plan_experiment", "-d", dataset)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_extract_fingerprint."""
    return run_command(build_parser(), extract, arguments)
