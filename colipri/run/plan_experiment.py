"""colipri_plan_experiment: from a fingerprint to a plan, each number with its reason."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from colipri.plans.overrides import parse_assignments
from colipri.run.cli import make_parser, run_command
from colipri.run.next_command import say_next
from colipri.run.planning_options import add_dataset_option, add_planning_options, plans_option

DESCRIPTION = """\
Plan pre-training from a data set's fingerprint: spacing, patch size, model, text encoder, text
length, batch and micro batch, checkpointing, schedule. Prints every choice with its reason, the
predicted memory, the arithmetic of a step and hours on common GPUs.

    colipri_plan_experiment -d 101                          for a GPU of 24 GB
    colipri_plan_experiment -d 101 -gpu_memory_target 80    for a larger one
    colipri_plan_experiment -d 101 -gpu_memory_target 80 -num_gpus 8
    colipri_plan_experiment -d 101 -gpu_memory_target cpu   for training without a GPU
    colipri_plan_experiment -d 101 -gpu_memory_target auto  for the GPU of this machine, or its CPU
    colipri_plan_experiment -d 101 --like ct-clip -gpu_memory_target 40
                                                            images as CT-CLIP's encoder expects them
    colipri_plan_experiment -d 101 -pl my_package.planners:MyPlanner
    colipri_plan_experiment -d 101 --set batch_size=64 objectives.M.mask_ratio=0.6

The plan is a JSON file, $colipri_preprocessed/DatasetXXX/colipriPlans.json, made to be edited. The
same fingerprint and the same options give the same file.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_plan_experiment", DESCRIPTION)
    add_dataset_option(parser)
    add_planning_options(parser)
    return parser


def plan(options: argparse.Namespace) -> int:
    """Plan each data set and show the plan."""
    from colipri.common.devices import memory_target
    from colipri.experiment_planning.planning import check_planning_options

    options.gpu_memory_target = memory_target(options.gpu_memory_target)
    check_planning_options(
        options.pl,
        options.gpu_memory_target,
        "auto",
        options.num_gpus,
        options.gpu_measurements,
        options.like,
    )
    for dataset in options.d:
        plan_and_show(dataset, options)
        say_next("colipri_preprocess", "-d", dataset, *plans_option(options.overwrite_plans_name))
    return 0


def plan_and_show(dataset: str, options: argparse.Namespace) -> None:
    """Write one plan and print its table (also used by colipri_plan_and_preprocess)."""
    import logging

    from colipri.common.devices import CPU_MEMORY_TARGET, has_accelerator, memory_target
    from colipri.experiment_planning.plan_table import format_plan
    from colipri.experiment_planning.planning import plan_experiment

    target = memory_target(options.gpu_memory_target)
    plans = plan_experiment(
        dataset,
        options.pl,
        target,
        options.text_encoder,
        options.overwrite_plans_name,
        options.like,
        parse_assignments(options.set),
        options.num_gpus,
        options.gpu_measurements,
    )
    logger = logging.getLogger("colipri")
    logger.info("%s", format_plan(plans))
    if target > CPU_MEMORY_TARGET and not has_accelerator():
        logger.info(
            "\nThis machine has no GPU. To train here, plan with -gpu_memory_target cpu: a small "
            "model that a CPU can train"
        )
    logger.info("\nThe plan is in %s", plans.source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_plan_experiment."""
    return run_command(build_parser(), plan, arguments)
