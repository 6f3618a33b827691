"""colipri_preprocess: crop, resample and store the cases of a planned data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from colipri.common.errors import ColipriError
from colipri.run.cli import make_parser, run_command

DESCRIPTION = """\
Crop every case to the body, resample it to the plan's spacing and store it for training.

    colipri_preprocess -d 101                      all configurations of the plan
    colipri_preprocess -d 101 -c 3d_lowres -np 8   one configuration, eight processes

The result lies in $colipri_preprocessed/DatasetXXX/<configuration>. The command may be stopped or
killed at any moment: run it again and it goes on, finished cases are skipped. Cases whose source
file or plan has changed are made again.

In a job array, give every job --num_parts (how many) and --part_id (0, 1, ...); the last job to
finish completes the folder.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments (nnU-Net's, where it has them)."""
    parser = make_parser("colipri_preprocess", DESCRIPTION)
    parser.add_argument(
        "-d", nargs="+", required=True, metavar="DATASET", help="numbers or names, e.g. 101 102"
    )
    parser.add_argument(
        "-c", nargs="+", metavar="CONFIGURATION", help="default: all that the plan has"
    )
    parser.add_argument(
        "-p", default="colipriPlans", metavar="PLANS", help="plans name (default: %(default)s)"
    )
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: cores, at most 8)")
    parser.add_argument("--num_parts", type=int, default=1, metavar="N", help="jobs in the array")
    parser.add_argument("--part_id", type=int, default=0, metavar="I", help="this job, from 0")
    parser.add_argument(
        "--keep_going",
        action="store_true",
        help="leave broken cases out (listed in manifest.json) instead of stopping at the first",
    )
    return parser


def preprocess(options: argparse.Namespace) -> int:
    """Preprocess each data set with its plan."""
    import logging

    from colipri.experiment_planning.plans import load_plans
    from colipri.paths import find_dataset_name
    from colipri.preprocessing.preprocessor import preprocess_dataset

    if options.np is not None and options.np < 1:
        raise ColipriError(f"-np must be at least 1, not {options.np}")
    names = [find_dataset_name(dataset) for dataset in options.d]
    plans = {
        name: load_plans(name, options.p) for name in names
    }  # all are there before work begins
    for name in names:
        stores = preprocess_dataset(
            name,
            plans[name],
            options.c,
            options.np,
            options.num_parts,
            options.part_id,
            options.keep_going,
        )
        for configuration, store in stores.items():
            if store is not None:
                logging.getLogger("colipri").info(
                    "%s %s is ready in %s; next: colipri_train %s %s 0",
                    name,
                    configuration,
                    store.folder,
                    name,
                    configuration,
                )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_preprocess."""
    return run_command(build_parser(), preprocess, arguments)
