"""colipri_preprocess: crop, resample and store the cases of a planned data set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.cluster import cluster
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next
from colipri.run.planning_options import (
    add_cluster_options,
    add_dataset_option,
    add_part_options,
    add_process_options,
    add_set_option,
    check_parts,
    check_processes,
    plans_option,
)

if TYPE_CHECKING:
    from colipri.preprocessing.store import CaseStore

DESCRIPTION = """\
Crop every case to the body, resample it to the plan's spacing and store it for training.

    colipri_preprocess -d 101                      all configurations of the plan
    colipri_preprocess -d 101 -c 3d_lowres -np 8   one configuration, eight processes

The result is in $colipri_preprocessed/DatasetXXX/<configuration>. You may stop or kill the command
at any time: if you run it again, it skips finished cases and continues. Cases whose source file or
plan has changed are preprocessed again.

In a job array, give every job --num_parts (how many) and --part_id (0, 1, ...); the last job to
finish completes the folder. With --backend dask the workers of a dask cluster do the work; see
documentation/distributed.md. --set PATH=VALUE edits the plan first, because the stored cases belong
to it; the plan before is kept as colipriPlans_before.json.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser (nnU-Net's, where it has them)."""
    parser = make_parser("colipri_preprocess", DESCRIPTION)
    add_dataset_option(parser)
    parser.add_argument(
        "-c", nargs="+", metavar="CONFIGURATION", help="default: all that the plan has"
    )
    parser.add_argument(
        "-p", default="colipriPlans", metavar="PLANS", help="plans name (default: %(default)s)"
    )
    add_set_option(parser)
    add_part_options(parser)
    add_process_options(parser)
    add_cluster_options(parser)
    return parser


def preprocess(options: argparse.Namespace) -> int:
    """Preprocess each data set with its plan, here or on a cluster."""
    with cluster(options.backend, options.scheduler):
        return _preprocess(options)


def _preprocess(options: argparse.Namespace) -> int:
    from colipri.experiment_planning.planner import checked_objectives
    from colipri.experiment_planning.planning import edit_plans
    from colipri.paths import find_dataset_name
    from colipri.plans.overrides import parse_assignments
    from colipri.plans.plans import load_plans
    from colipri.preprocessing.preprocessor import preprocess_dataset

    check_processes(options.np)
    check_parts(options.num_parts, options.part_id)
    names = [find_dataset_name(dataset) for dataset in options.d]
    # all plans are there and whole before work begins
    plans = {name: checked_objectives(load_plans(name, options.p)) for name in names}
    overrides = parse_assignments(options.set)
    if overrides:  # the stored cases belong to the plan, so the plan itself is edited
        plans = {name: edit_plans(plan, overrides) for name, plan in plans.items()}
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
        say_what_is_ready(name, options.p, stores)
    return 0


def say_what_is_ready(name: str, plans_name: str, stores: Mapping[str, CaseStore | None]) -> None:
    """Log where the cases are and what to type next (also used by colipri_plan_and_preprocess).

    Args:
        name: of the data set.
        plans_name: of the plan.
        stores: as preprocess_dataset returns them; None where other parts are still at work.
    """
    import logging

    from colipri.paths import dataset_id
    from colipri.plans.plans import load_plans

    logger = logging.getLogger("colipri")
    model = load_plans(name, plans_name).like  # or the title of a preset, which is no file
    start = ["-pretrained_weights", model] if model and Path(model).exists() else []
    for configuration, store in stores.items():
        if store is not None:
            logger.info("%s %s is ready in %s", name, configuration, store.folder)
            train = ["colipri_train", dataset_id(name), configuration, 0]
            say_next(*train, *plans_option(plans_name), *start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_preprocess."""
    return run_command(build_parser(), preprocess, arguments)
