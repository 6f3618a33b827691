"""Arguments of colipri_train, and what of them replaces the plan's numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from colipri.common.errors import ColipriError
from colipri.run.cli import make_parser

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


def given_options(options: argparse.Namespace) -> dict[str, Any]:
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
