"""Arguments of colipri_train, and what of them replaces the plan's numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from colipri.plans.overrides import parse_assignments
from colipri.run.cli import make_parser
from colipri.run.train_features import add_feature_training_options

LONG_TRAINING = 1000  # steps from which a few seconds for the check do not count

DESCRIPTION = """\
Pre-train an image encoder and a text encoder on a preprocessed data set.

    colipri_train 101 3d_lowres 0        train on fold 0
    colipri_train 101 3d_lowres all      train on all cases (no validation)
    colipri_train 101 3d_lowres 0 --c    continue where it stopped
    colipri_train 101 3d_lowres 0 --val  only validate a finished training
    colipri_train 101 3d_lowres 0 -num_gpus 4                              four GPUs
    torchrun --nproc_per_node 8 --no-python colipri_train 101 3d_lowres 0  one or many machines

Several processes share the plan's batch. With equal micro batches they compute what one process
computes, only faster. A training continues with any number of processes. See
documentation/distributed.md.

What is trained is in the plan (training.objectives), with the reason. A trainer that is named after
objectives trains those instead: C contrastive alignment, R report generation, M masked
image modelling (also on scans without a report), O opposite sentences, L findings, D
self-distillation, A sentence queries. There are ColipriTrainer_C, _M, _CO, _CR, _CM, _CRM,
_CRMO, and any other combination of letters.

Every number comes from the plan ($colipri_preprocessed/DatasetXXX/colipriPlans.json), which you may
edit; --set PATH=VALUE replaces single numbers for one run. SIGTERM, SIGUSR1 and Ctrl-C end the run
after the current step with a checkpoint (exit code 75; 130 for Ctrl-C).
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser (nnU-Net's, where it has them)."""
    parser = make_parser("colipri_train", DESCRIPTION)
    parser.add_argument("dataset", help="number or name of the data set, e.g. 101")
    parser.add_argument("configuration", help="3d_lowres or 3d_fullres")
    parser.add_argument("fold", help="0 to 4, or all")
    parser.add_argument(
        "-tr",
        default="ColipriTrainer",
        metavar="TRAINER",
        help="trainer: ColipriTrainer_ and letters, see above, instead of the objectives of the "
        "plan (default: %(default)s, those of the plan)",
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
        help="processes on this machine, one per GPU (with -device cpu: N processes on the CPU)",
    )
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="several processes: all weights in each (ddp, the default), or "
        "a shard of each transformer block (fsdp), for models that do not fit otherwise",
    )
    parser.add_argument("--c", action="store_true", help="continue from the latest checkpoint")
    parser.add_argument("--val", action="store_true", help="only validate a trained model")
    parser.add_argument(
        "--val_best", action="store_true", help="with --val: the best checkpoint, not the final one"
    )
    parser.add_argument(
        "--allow_changed_data",
        action="store_true",
        help="with --c or --val: continue although cases, reports, labels or splits are not those "
        "that the checkpoint was trained on; the log lists what has changed",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start from scratch; an existing training is moved aside",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="only check that the encoder of this plan can go into nnU-Net afterwards (done anyway "
        f"before a training of {LONG_TRAINING} steps or more)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="PATH=VALUE",
        help="numbers of the plan for this run, e.g. training.ema_decay=0.999 batch_size=8 "
        "objectives.M.mask_ratio=0.6 mixing.schedule=alternating augmentation.noise_std=0.05 "
        "architecture.drop_path_rate=0.1 training.frozen='[\"text_encoder\"]'",
    )
    parser.add_argument(
        "--objectives",
        nargs="+",
        metavar="LETTER",
        help="instead of the trainer's, e.g. C O M, or C my_package.my_module:MyObjective",
    )
    short = parser.add_argument_group("short for --set")
    short.add_argument("--epochs", type=int, metavar="N", help="training.num_epochs")
    short.add_argument(
        "--iterations_per_epoch", type=int, metavar="N", help="training.num_iterations_per_epoch"
    )
    short.add_argument("--batch_size", type=int, metavar="N", help="batch_size")
    short.add_argument("--micro_batch_size", type=int, metavar="N", help="micro_batch_size")
    short.add_argument("--learning_rate", type=float, metavar="X", help="training.learning_rate")
    short.add_argument("--keep_ratio", type=float, metavar="X", help="training.keep_ratio")
    short.add_argument("--contrastive", choices=("infonce", "siglip"), help="objectives.C.kind")
    short.add_argument("--mixing", choices=("per_step", "alternating"), help="mixing.schedule")
    short.add_argument(
        "--image_only_share", type=float, metavar="X", help="mixing.image_only_share"
    )
    short.add_argument(
        "--dataset_weights", nargs="+", metavar="DATASET=W", help="mixing.dataset_weights"
    )
    short.add_argument("--training", nargs="+", metavar="NAME=VALUE", help="training.NAME")
    parser.add_argument(
        "-pretrained_weights",
        metavar="FILE",
        help="start from a checkpoint of colipri, nnssl or nnU-Net's Primus, or from the released "
        "COLIPRI; the log lists what is loaded",
    )
    parser.add_argument(
        "--validate_every",
        type=int,
        metavar="N",
        help="epochs between validations (default: the plan's training.validate_every)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="default: 12345")
    parser.add_argument("-num_workers", type=int, metavar="N", help="loader processes (0: none)")
    parser.add_argument(
        "-precision",
        choices=("auto", "fp32", "bf16"),
        help="auto: bf16 where GPU or CPU compute in it natively, else fp32 (the log says which)",
    )
    add_feature_training_options(parser)
    return parser


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the run options that were typed; on --c all others are those of the interrupted
    run.
    """
    short = {
        "training.num_epochs": options.epochs,
        "training.num_iterations_per_epoch": options.iterations_per_epoch,
        "batch_size": options.batch_size,
        "micro_batch_size": options.micro_batch_size,
        "training.learning_rate": options.learning_rate,
        "training.keep_ratio": options.keep_ratio,
        "objectives.C.kind": options.contrastive,
        "mixing.schedule": options.mixing,
        "mixing.image_only_share": options.image_only_share,
        "mixing.dataset_weights": parse_assignments(options.dataset_weights, "--dataset_weights")
        or None,
    }
    overrides = {path: value for path, value in short.items() if value is not None}
    training = parse_assignments(options.training, "--training")
    overrides |= {f"training.{name}": value for name, value in training.items()}
    overrides |= parse_assignments(options.set)
    values = {
        "overrides": overrides or None,
        "seed": options.seed,
        "num_workers": options.num_workers,
        "precision": options.precision,
        "validate_every": options.validate_every,
        "objectives": _objectives(options.objectives),
        "pretrained_weights": options.pretrained_weights,
        "parallel": options.parallel,
    }
    return {name: value for name, value in values.items() if value is not None}


def _objectives(keys: Sequence[str] | None) -> str | None:
    """["C", "O"] -> "CO"; names and classes are separated by commas."""
    if not keys:
        return None
    return ("" if all(":" not in key and key.isupper() for key in keys) else ",").join(keys)
