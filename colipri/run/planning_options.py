"""Arguments that the planning commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from colipri.common.cluster import BACKENDS

DEFAULT_PLANS = "colipriPlans"


def add_planning_options(parser: argparse.ArgumentParser) -> None:
    """Add nnU-Net's -pl, -gpu_memory_target and -overwrite_plans_name, and the project's own."""
    group = parser.add_argument_group("planning")
    group.add_argument(
        "-pl",
        default="ColipriPlanner",
        metavar="PLANNER",
        help="planner: a name, or package.module:Class of your own (default: %(default)s)",
    )
    group.add_argument(
        "-gpu_memory_target",
        default="24",
        metavar="GB",
        help="memory of one GPU that training may use (default: %(default)s); cpu for a machine "
        "without a GPU; auto for the GPU of this machine, or cpu. The plan holds the number",
    )
    group.add_argument(
        "-num_gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs that will train together, each with that memory (default: %(default)s): decides "
        "the batch, and the hours that are shown",
    )
    group.add_argument(
        "--gpu_measurements",
        type=Path,
        metavar="FILE",
        help="gpu.json of benchmarks/gpu.py on the GPU that will train: hours follow what it "
        "measured",
    )
    group.add_argument(
        "-text_encoder",
        default="auto",
        metavar="NAME",
        help="scratch, or a BERT-like encoder by hub name or folder (default: CXR-BERT where it "
        "can be loaded, otherwise scratch)",
    )
    group.add_argument(
        "--like",
        metavar="PROJECT|MODEL",
        help="prepare images as another project does (colipri, ct-clip, merlin, fvlm, hlip), or "
        "plan the network and the images of a model (anything that -m takes), to train it further "
        "with -pretrained_weights",
    )
    group.add_argument(
        "-overwrite_plans_name",
        default=DEFAULT_PLANS,
        metavar="NAME",
        help="name of the plans file (default: %(default)s)",
    )
    add_set_option(group)


def plans_option(name: str) -> list[str]:
    """Return ``-p NAME`` for the next command; nothing for the default name."""
    return [] if name == DEFAULT_PLANS else ["-p", name]


def add_set_option(parser: argparse._ActionsContainer) -> None:
    """Add --set, for every number of a plan."""
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="PATH=VALUE",
        help="numbers of the plan, e.g. batch_size=8 spacing=[2,2,2] training.ema_decay=0.999 "
        "objectives.M.mask_ratio=0.6 3d_lowres.architecture.drop_path_rate=0.1",
    )


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """Add -d, for one or several data sets."""
    parser.add_argument(
        "-d", nargs="+", required=True, metavar="DATASET", help="numbers or names, e.g. 101 102"
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add -np and --keep_going."""
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: cores, at most 8)")
    parser.add_argument(
        "--keep_going",
        action="store_true",
        help="leave out cases that cannot be read, and those in which --verify_dataset_integrity "
        "finds an error (all are named), instead of stopping",
    )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add --backend and --scheduler."""
    parser.add_argument(
        "--backend",
        default="local",
        choices=BACKENDS,
        help="who works: processes of this machine, or the workers of a dask cluster "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of dask: tcp://host:8786, or the file of dask scheduler --scheduler-file",
    )


def check_processes(number: int | None) -> None:
    """Refuse a -np that is not a count.

    Raises:
        ColipriError: it is not.
    """
    from colipri.common.errors import ColipriError

    if number is not None and number < 1:
        raise ColipriError(f"-np must be at least 1, not {number}")


def warn_of_known_errors(dataset: str) -> None:
    """Name the cases in which an earlier verification found errors: this run does not verify."""
    import logging

    from colipri.paths import find_dataset_name, preprocessed_folder
    from colipri.raw_dataset.left_out import describe_left_out
    from colipri.raw_dataset.verification.verify import read_left_out

    name = find_dataset_name(dataset)
    wrong = read_left_out(preprocessed_folder() / name)
    if wrong:
        logging.getLogger("colipri").warning(
            "%s: an earlier verification found errors, with which %s only by "
            "colipri_plan_and_preprocess --verify_dataset_integrity --keep_going; this run does "
            "not verify and uses what it can read",
            name,
            describe_left_out(wrong),
        )


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """Add --num_parts and --part_id, for job arrays."""
    parser.add_argument("--num_parts", type=int, default=1, metavar="N", help="jobs in the array")
    parser.add_argument("--part_id", type=int, default=0, metavar="I", help="this job, from 0")


def check_parts(num_parts: int, part_id: int) -> None:
    """Refuse a part that is not in the array, before any work is done.

    Raises:
        ColipriError: it is not.
    """
    from colipri.common.errors import ColipriError

    if num_parts < 1:
        raise ColipriError(f"--num_parts must be at least 1, not {num_parts}")
    if not 0 <= part_id < num_parts:
        raise ColipriError(
            f"--part_id must be 0 to {num_parts - 1} (--num_parts - 1), not {part_id}"
        )
