"""colipri_verify_dataset: find all problems of a data set before hours are spent on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, EXIT_PROBLEM
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import command_line, say_next
from colipri.run.planning_options import add_dataset_option, check_processes

if TYPE_CHECKING:
    from colipri.raw_dataset.verification.issues import Verification

DESCRIPTION = """\
Check every image, report and row of a data set and list all problems in one pass: truncated files,
NaN, lost spacing, channels on different grids, values that are not Hounsfield units, empty or
wrongly paired reports, duplicate scans, subjects on two sides of a split, and more.

    colipri_verify_dataset -d 101
    colipri_verify_dataset -d 101 201 --json issues.json -np 8

No raw file is changed. Errors must be fixed (or the cases removed), warnings should be checked,
notes are for information. The exit code is 1 if there is an error, otherwise 0.
documentation/raw_format.md explains every code and its remedy.

A run that was killed can be repeated and continues: cases without errors whose files have not
changed are not read again ($colipri_preprocessed/DatasetXXX/verification_cases; remove that folder
to start from scratch).

The JSON is a list with one object per issue: dataset, severity (error, warning, info), code, case,
file, message.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_verify_dataset", DESCRIPTION)
    add_dataset_option(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all issues to this file, for scripts"
    )
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: cores, at most 8)")
    return parser


def verify(options: argparse.Namespace) -> int:
    """Verify each data set; 1 if any has an error."""
    from colipri.common.atomic import atomic_write_json
    from colipri.paths import find_dataset_name
    from colipri.raw_dataset.verification.verify import verify_dataset

    check_processes(options.np)
    names = [find_dataset_name(dataset) for dataset in options.d]  # check all names before starting
    results = [verify_dataset(name, options.np) for name in names]
    if options.json is not None:
        issues = [issue for result in results for issue in result.to_list()]
        atomic_write_json(options.json, issues)
    for result in results:
        _show(result, options.json)
    return EXIT_PROBLEM if any(result.errors for result in results) else EXIT_OK


def _show(result: Verification, json_file: Path | None) -> None:
    import logging

    from colipri.paths import dataset_id

    logger = logging.getLogger("colipri")
    logger.info("%s", result.to_text())
    number = dataset_id(result.dataset)
    if json_file is not None:
        logger.info("All issues are in %s", json_file)
    if result.errors:
        again = ("colipri_verify_dataset", "-d", number, "--json", json_file or "issues.json")
        logger.info("Next: fix errors, then %s", command_line(*again))
    else:
        say_next("colipri_plan_and_preprocess", "-d", number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_verify_dataset."""
    return run_command(build_parser(), verify, arguments)
