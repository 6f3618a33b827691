"""colipri_train: pre-train on one fold of a preprocessed data set."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.devices import find_device
from colipri.common.errors import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEM,
    EXIT_UNEXPECTED,
    ColipriError,
)
from colipri.run.cli import make_parser, run_command
from colipri.run.local_processes import (
    EXIT_PEER_LOST,
    EXIT_STOPPED,
    STARTED_HERE,
    started_by_another,
    train_here,
)

if TYPE_CHECKING:
    import torch

LONG_TRAINING = 1000  # steps from which a few seconds for the check do not count

DESCRIPTION = """\
Pre-train an image encoder and a text encoder on a preprocessed data set.

    colipri_train 101 3d_lowres 0        train on fold 0
    colipri_train 101 3d_lowres all      train on all cases (no validation)
    colipri_train 101 3d_lowres 0 --c    go on where it was stopped
    colipri_train 101 3d_lowres 0 --val  only validate a finished training
    colipri_train 101 3d_lowres 0 -num_gpus 4                              four GPUs
    torchrun --nproc_per_node 8 --no-python colipri_train 101 3d_lowres 0  one or many machines

Several processes share the plan's batch and compute what one process computes, faster; a training
goes on with any number of them. See documentation/distributed.md.

Trainers are called by what they train: C contrastive alignment, R report generation, M masked
image modelling (also on scans without a report), O opposite sentences. There are ColipriTrainer_C,
_M, _CO, _CR, _CM, _CRM and _CRMO; any other combination with --objectives.

Every number comes from the plan ($colipri_preprocessed/DatasetXXX/colipriPlans.json), which you may
edit; the options below replace single numbers for one run. SIGTERM, SIGUSR1 and Ctrl-C end the run
after the present step with a checkpoint (exit code 75; 130 for Ctrl-C).
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments (nnU-Net's, where it has them)."""
    parser = make_parser("colipri_train", DESCRIPTION)
    parser.add_argument("dataset", help="number or name of the data set, e.g. 101")
    parser.add_argument("configuration", help="3d_lowres or 3d_fullres")
    parser.add_argument("fold", help="0 to 4, or all")
    parser.add_argument(
        "-tr",
        default="ColipriTrainer_CRM",
        metavar="TRAINER",
        help="trainer: ColipriTrainer_ and letters, see above (default: %(default)s)",
    )
    parser.add_argument(
        "-p", default="colipriPlans", metavar="PLANS", help="plans name (default: %(default)s)"
    )
    parser.add_argument(
        "-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: %(default)s"
    )
    parser.add_argument(
        "-num_gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, one a GPU (with -device cpu: N processes on the CPU)",
    )
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="several processes: all weights in each (ddp, the default), or of transformer blocks "
        "a shard in each (fsdp), for models that do not fit otherwise",
    )
    parser.add_argument("--c", action="store_true", help="continue from the latest checkpoint")
    parser.add_argument("--val", action="store_true", help="only validate a trained model")
    parser.add_argument(
        "--val_best", action="store_true", help="with --val: the best checkpoint, not the final one"
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew; a training that is there is moved aside"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="only check that the encoder of this plan can go into nnU-Net afterwards (done anyway "
        f"before a training of {LONG_TRAINING} steps or more)",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the plan's")
    parser.add_argument(
        "--iterations_per_epoch", type=int, metavar="N", help="instead of the plan's"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="contrastive batch")
    parser.add_argument(
        "--micro_batch_size", type=int, metavar="N", help="what memory holds at once"
    )
    parser.add_argument("--learning_rate", type=float, metavar="X", help="peak of the schedule")
    parser.add_argument(
        "--contrastive", choices=("infonce", "siglip"), help="form of the contrastive loss"
    )
    parser.add_argument(
        "--keep_ratio", type=float, metavar="X", help="share of the body tokens seen in training"
    )
    parser.add_argument(
        "--objectives", nargs="+", metavar="LETTER", help="instead of the trainer's, e.g. C O M"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        metavar="LETTER.OPTION=VALUE",
        dest="objective_options",
        help="options of objectives, e.g. M.mask_ratio=0.6 O.weight=1 R.parallel=0.75",
    )
    parser.add_argument(
        "--mixing", choices=("per_step", "alternating"), help="scans with and without a report"
    )
    parser.add_argument(
        "--image_only_share", type=float, metavar="X", help="of all samples (default: as there are)"
    )
    parser.add_argument(
        "--dataset_weights",
        nargs="+",
        metavar="DATASET=W",
        help="how often scans of a collection's data sets come up, relative to each other",
    )
    parser.add_argument(
        "-pretrained_weights",
        metavar="FILE",
        help="start from a checkpoint of colipri, nnssl or nnU-Net's Primus, or from the released "
        "COLIPRI; what is loaded is said",
    )
    parser.add_argument(
        "--training",
        nargs="+",
        metavar="NAME=VALUE",
        help="other entries of the plan's training, e.g. ema_decay=0.999 layer_decay=0.75 "
        "frozen='[\"text_encoder\"]' compile=true",
    )
    parser.add_argument("--validate_every", type=int, metavar="N", help="epochs")
    parser.add_argument("--seed", type=int, metavar="N", help="default: 12345")
    parser.add_argument("-num_workers", type=int, metavar="N", help="loader processes (0: none)")
    parser.add_argument("-precision", choices=("auto", "fp32", "bf16"))
    return parser


def train(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train in this process, alone or as one of several, or start several on this machine."""
    if options.num_gpus < 1:
        raise ColipriError(f"-num_gpus must be at least 1, not {options.num_gpus}")
    if started_by_another():  # torch's own words on a lost process: pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    device = find_device(options.device)
    if options.num_gpus > 1 and os.environ.get(STARTED_HERE) is None:
        if started_by_another():
            raise ColipriError("torchrun says how many processes there are; leave -num_gpus out")
        _require_gpus(options)
        return train_here(arguments, options.num_gpus)

    from colipri.training.processes import (
        PeerLost,
        first_to_speak,
        join_processes,
        leave_processes,
    )

    processes, device = join_processes(device)
    try:
        code = train_or_validate(options, device, processes.writes)
        leave_processes()
        return code
    except PeerLost:
        if STARTED_HERE in os.environ:  # the starting process says which one is gone
            return EXIT_PEER_LOST
        if first_to_speak(if_unknown=True):
            raise
        return EXIT_PEER_LOST
    except ColipriError:
        # where all find the same fault, the process that keeps the count has said so if it is gone
        if first_to_speak(if_unknown=False):
            raise
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        if processes.writes:
            raise
        return EXIT_INTERRUPTED
    except Exception:
        if first_to_speak(if_unknown=True):
            raise
        return EXIT_UNEXPECTED


def train_or_validate(options: argparse.Namespace, device: torch.device, writes: bool) -> int:
    """Find everything by name, then train or validate; one process of several ``writes``."""
    import logging

    from colipri.common.registry import find_class
    from colipri.experiment_planning.plans import load_plans
    from colipri.paths import find_dataset_name
    from colipri.training.checkpoint import ORIENTATION, load_checkpoint
    from colipri.training.options import RunOptions
    from colipri.training.run_folder import (
        BEST,
        FINAL,
        checkpoint_to_continue,
        prepare_run_folder,
        refuse_to_overwrite,
        run_folder,
    )
    from colipri.training.trainer import ColipriTrainer, TrainingStopped
    from colipri.training.variants import BUILTIN_TRAINERS

    logger = logging.getLogger("colipri")
    if options.c and options.restart:
        raise ColipriError("--c and --restart contradict each other")
    fold = _fold(options.fold)
    name = find_dataset_name(options.dataset)
    plans = load_plans(name, options.p)
    plans.configuration(options.configuration)  # an unknown configuration is named here
    if plans.orientation != ORIENTATION:
        raise ColipriError(
            f"{plans.source} prepares images with axes {plans.orientation} for an encoder trained "
            f"elsewhere (--like); training here needs {ORIENTATION}"
        )
    trainer_class = find_class("trainers", options.tr, BUILTIN_TRAINERS, ColipriTrainer)
    folder = run_folder(name, options.tr, options.p, options.configuration, fold)
    if not (options.val or options.verify):
        refuse_to_overwrite(folder, options.c, options.restart)
    existing = checkpoint_to_continue(folder) if options.c or options.val else None
    stored = load_checkpoint(existing)["init_args"]["options"] if existing else {}
    run_options = RunOptions(**{**stored, **_given(options)})
    trainer = trainer_class(plans, options.configuration, fold, folder, device, run_options)
    if options.val:
        checkpoint = folder / (BEST if options.val_best else FINAL)
        trainer.resume(checkpoint)
        trainer.run_final_validation()
        return 0
    trainer.initialize()  # before the folder is touched: what cannot be trained leaves no trace
    if options.pretrained_weights and existing is None:
        trainer.load_pretrained_weights(Path(options.pretrained_weights))
    steps = trainer.settings["num_epochs"] * trainer.settings["num_iterations_per_epoch"]
    if options.verify or (steps >= LONG_TRAINING and existing is None):
        trainer.verify_transfer()
    if options.verify:
        return 0
    if writes:
        prepare_run_folder(folder, options.restart)
    trainer.describe_run()
    if existing is not None:
        trainer.resume(existing)
    elif options.c:
        logger.info("There is no checkpoint in %s yet: training begins anew", folder)
    try:
        trainer.run_training()
    except TrainingStopped as stopped:
        logger.info("Stopped by %s; the checkpoint is written. Go on with --c", stopped)
        if str(stopped) == "SIGINT":
            raise KeyboardInterrupt from None
        return EXIT_STOPPED
    best = folder / (BEST if (folder / BEST).is_file() else FINAL)
    if set(trainer.objectives) == {"masked_image_modelling"}:  # no text tower to ask
        logger.info("Next: colipri_transfer_to_nnunet -d NNUNET_DATASET -m %s", best)
        return 0
    logger.info(
        "Next: colipri_zero_shot -m %s -d %s --split test -o zero_shot.json", best, options.dataset
    )
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The run options that were typed; on --c all others are those of the interrupted run."""
    values = {
        "epochs": options.epochs,
        "iterations_per_epoch": options.iterations_per_epoch,
        "batch_size": options.batch_size,
        "micro_batch_size": options.micro_batch_size,
        "learning_rate": options.learning_rate,
        "contrastive_kind": options.contrastive,
        "seed": options.seed,
        "num_workers": options.num_workers,
        "precision": options.precision,
        "keep_ratio": options.keep_ratio,
        "validate_every": options.validate_every,
        "objectives": "".join(options.objectives) if options.objectives else None,
        "objective_options": _assignments(options.objective_options, "--set") or None,
        "mixing": _mixing(options) or None,
        "training": _assignments(options.training, "--training") or None,
        "pretrained_weights": options.pretrained_weights,
        "parallel": options.parallel,
    }
    return {name: value for name, value in values.items() if value is not None}


def _mixing(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of scans with and without a report."""
    values = {
        "schedule": options.mixing,
        "image_only_share": options.image_only_share,
        "dataset_weights": _assignments(options.dataset_weights, "--dataset_weights") or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _assignments(texts: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """["M.mask_ratio=0.6", "M.mask=block"] -> {"M.mask_ratio": 0.6, "M.mask": "block"}."""
    import json

    values: dict[str, Any] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ColipriError(f"{flag} {text}: say NAME=VALUE")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def _fold(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdigit():
        raise ColipriError(f"fold '{text}': it must be a number (0 to 4) or all")
    return int(text)


def _require_gpus(options: argparse.Namespace) -> None:
    import torch

    if options.device == "mps":
        raise ColipriError("there is one MPS device; leave -num_gpus out")
    if options.device == "cuda" and options.num_gpus > torch.cuda.device_count():
        raise ColipriError(
            f"-num_gpus {options.num_gpus}: this machine shows {torch.cuda.device_count()} GPUs"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_train."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(build_parser(), partial(train, arguments=given), given)
