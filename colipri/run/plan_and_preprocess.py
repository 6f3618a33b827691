"""colipri_plan_and_preprocess: verification, fingerprint, plan and preprocessing in one command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from colipri.common.cluster import cluster
from colipri.common.errors import ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next
from colipri.run.planning_options import (
    add_cluster_options,
    add_dataset_option,
    add_part_options,
    add_planning_options,
    add_process_options,
    check_parts,
    check_processes,
    plans_option,
    warn_of_known_errors,
)

DESCRIPTION = """\
From a raw data set to a folder that training reads: verify it, extract its fingerprint, plan, and
preprocess all cases.

    colipri_plan_and_preprocess -d 101 --verify_dataset_integrity -c 3d_lowres
    colipri_plan_and_preprocess -d 101 -gpu_memory_target 80 -np 16

Use --verify_dataset_integrity the first time: it names every problem of every case before hours are
spent. If the command is killed and run again, it does not repeat finished steps and cases. To
spread preprocessing over a job array, run this command with --no_pp once, then colipri_preprocess
with --num_parts and --part_id.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser (nnU-Net's, where it has them)."""
    parser = make_parser("colipri_plan_and_preprocess", DESCRIPTION)
    add_dataset_option(parser)
    parser.add_argument(
        "--verify_dataset_integrity",
        action="store_true",
        help="check all cases first; stops if there are errors (with --keep_going: leaves out the "
        "cases that have one)",
    )
    parser.add_argument(
        "-c",
        nargs="+",
        metavar="CONFIGURATION",
        help="configurations to preprocess (default: 3d_lowres 3d_fullres)",
    )
    parser.add_argument("--no_pp", action="store_true", help="plan only, do not preprocess")
    add_part_options(parser)
    add_process_options(parser)
    add_cluster_options(parser)
    add_planning_options(parser)
    return parser


def plan_and_preprocess(options: argparse.Namespace) -> int:
    """Do all steps for each data set, here or on a cluster."""
    with cluster(options.backend, options.scheduler):
        return _plan_and_preprocess(options)


def _plan_and_preprocess(options: argparse.Namespace) -> int:
    """Planning of all comes first, because it is quick to fail."""
    from colipri.common.devices import memory_target
    from colipri.experiment_planning.planning import check_planning_options
    from colipri.paths import dataset_id, find_dataset_name

    check_processes(options.np)
    check_parts(options.num_parts, options.part_id)
    options.gpu_memory_target = memory_target(options.gpu_memory_target)
    check_planning_options(
        options.pl,
        options.gpu_memory_target,
        options.text_encoder,
        options.num_gpus,
        options.gpu_measurements,
        options.like,
    )
    names = [find_dataset_name(dataset) for dataset in options.d]
    for name in names:
        left_out = {}
        if options.verify_dataset_integrity:
            left_out = _verify(name, options)
        else:
            warn_of_known_errors(name)
        _fingerprint_and_plan(name, options, left_out)
    if options.no_pp:
        numbers = [dataset_id(name) for name in names]
        say_next("colipri_preprocess", "-d", *numbers, *plans_option(options.overwrite_plans_name))
        return 0
    for name in names:
        _preprocess(name, options)
    return 0


def _verify(name: str, options: argparse.Namespace) -> dict[str, str]:
    """Verify a data set.

    Returns:
        Case -> "code: reason" of the cases to leave out.

    Raises:
        ColipriError: there are errors (without --keep_going), or errors that leaving out cases
            does not solve.
    """
    import logging

    from colipri.paths import preprocessed_folder
    from colipri.raw_dataset.left_out import describe_left_out
    from colipri.raw_dataset.verification.verify import verify_dataset, write_verification

    result = verify_dataset(name, options.np)
    folder = preprocessed_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    write_verification(result, folder)
    logger = logging.getLogger("colipri")
    logger.info("%s", result.to_text())
    listed = f"listed above and in {folder / 'verification.json'}"
    if result.errors and not options.keep_going:
        cases = "; correct them, or leave out the cases with --keep_going"
        between = "; correct them (--keep_going does not apply: they concern more than one case)"
        raise ColipriError(
            f"{name} has {len(result.errors)} error(s), {listed}"
            f"{between if result.dataset_errors else cases}"
        )
    if result.dataset_errors:
        first = result.dataset_errors[0]
        raise ColipriError(
            f"{name} has {len(result.dataset_errors)} error(s) that leaving out cases does not "
            f"solve, {listed}; the first is {first.code}: {first.message}"
        )
    if result.left_out:
        logger.warning("%s: %s", name, describe_left_out(result.left_out))
    return result.left_out


def _fingerprint_and_plan(
    name: str, options: argparse.Namespace, left_out: Mapping[str, str]
) -> None:
    import logging

    from colipri.experiment_planning.fingerprint import extract_fingerprint, summarize_fingerprint
    from colipri.run.plan_experiment import plan_and_show

    fingerprint = extract_fingerprint(name, options.np, options.keep_going, left_out)
    logging.getLogger("colipri").info("%s\n", summarize_fingerprint(fingerprint))
    plan_and_show(name, options)


def _preprocess(name: str, options: argparse.Namespace) -> None:
    from colipri.plans.plans import load_plans
    from colipri.preprocessing.preprocessor import preprocess_dataset
    from colipri.run.preprocess import say_what_is_ready

    stores = preprocess_dataset(
        name,
        load_plans(name, options.overwrite_plans_name),
        options.c,
        options.np,
        options.num_parts,
        options.part_id,
        options.keep_going,
    )
    say_what_is_ready(name, options.overwrite_plans_name, stores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_plan_and_preprocess."""
    return run_command(build_parser(), plan_and_preprocess, arguments)
