"""colipri_train: pre-train on one fold of a preprocessed data set."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEM,
    EXIT_UNEXPECTED,
    ColipriError,
)
from colipri.run.cli import run_command
from colipri.run.local_processes import (
    EXIT_PEER_LOST,
    EXIT_STOPPED,
    STARTED_HERE,
    started_by_another,
    train_here,
)
from colipri.run.next_command import evaluation_command, say_next
from colipri.run.train_features import prepare_feature_run, say_cost
from colipri.run.train_options import LONG_TRAINING, build_parser, given_options

FEATURE_TRAINER = "ColipriFeatureTrainer"

if TYPE_CHECKING:
    import torch

    from colipri.training.trainer import ColipriTrainer


def train(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train in this process, alone or as one of several, or start several on this machine."""
    if options.num_gpus < 1:
        raise ColipriError(f"-num_gpus must be at least 1, not {options.num_gpus}")
    if started_by_another():  # torch's own words on a lost process: pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from colipri.common.devices import find_device

    device = find_device(options.device)
    if options.num_gpus > 1 and os.environ.get(STARTED_HERE) is None:
        if started_by_another():
            raise ColipriError("torchrun sets the number of processes; omit -num_gpus")
        _require_gpus(options)
        return train_here(main, arguments, options.num_gpus)

    from colipri.training.distributed.processes import (
        PeerLost,
        claim_error_report,
        join_processes,
        leave_processes,
    )

    processes, device = join_processes(device)
    try:
        code = train_or_validate(options, device, processes.is_main)
        leave_processes()
        return code
    except PeerLost:
        if STARTED_HERE in os.environ:  # the starting process names the one that ended
            return EXIT_PEER_LOST
        if claim_error_report(if_unknown=True):
            raise
        return EXIT_PEER_LOST
    except ColipriError:
        # where all find the same fault, the process that keeps the count has said so if it is gone
        if claim_error_report(if_unknown=False):
            raise
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        if processes.is_main:
            raise
        return EXIT_INTERRUPTED
    except Exception:
        if claim_error_report(if_unknown=True):
            raise
        return EXIT_UNEXPECTED


def train_or_validate(options: argparse.Namespace, device: torch.device, is_main: bool) -> int:
    """Find everything by name, then train or validate; the main process writes.

    Args:
        options: As typed.
        device: To compute on.
        is_main: True in the process that writes files.
    """
    import logging
    from dataclasses import replace

    from colipri.checkpoints.checkpoint_file import load_checkpoint
    from colipri.imageio.image import DEFAULT_ORIENTATION
    from colipri.paths import find_dataset_name
    from colipri.plans.architecture import PRIMUS
    from colipri.plans.plans import load_plans
    from colipri.training.options import RunOptions
    from colipri.training.run_folder import (
        BEST,
        FINAL,
        checkpoint_to_continue,
        prepare_run_folder,
        refuse_to_overwrite,
        run_folder,
    )
    from colipri.training.trainer import TrainingStopped
    from colipri.training.variants import find_trainer

    logger = logging.getLogger("colipri")
    if options.val_best and not options.val:
        raise ColipriError("--val_best chooses the checkpoint that --val validates; add --val")
    if options.c and options.restart:
        raise ColipriError("--c and --restart contradict each other")
    fold = _fold(options.fold)
    name = find_dataset_name(options.dataset)
    on_features = None
    if options.features is not None:
        on_features = prepare_feature_run(options, name, fold, device)
    elif options.m is not None or options.dry_run:
        raise ColipriError("-m and --dry_run belong to --features")
    plans = load_plans(name, options.p) if on_features is None else on_features.plans
    named = plans.configuration(options.configuration).architecture.network_class_name
    if named != PRIMUS:
        raise ColipriError(
            f"{plans.source} names the class {named} (architecture.network_class_name); colipri "
            f"trains {PRIMUS}"
        )
    if plans.orientation != DEFAULT_ORIENTATION:
        raise ColipriError(
            f"{plans.source} prepares images with axes {plans.orientation} for an encoder trained "
            f"elsewhere (--like); training here needs {DEFAULT_ORIENTATION}"
        )
    trainer_class = find_trainer(options.tr)
    trainer_name = options.tr if on_features is None else FEATURE_TRAINER
    folder = run_folder(name, trainer_name, options.p, options.configuration, fold)
    if not (options.val or options.verify or options.dry_run):
        refuse_to_overwrite(folder, options.c, options.restart)
    existing = checkpoint_to_continue(folder) if options.c or options.val else None
    run_options = RunOptions()
    if existing:
        stored = load_checkpoint(existing, mapped=True)["init_args"]["options"]
        run_options = RunOptions.from_stored(stored, device)
    given = given_options(options)
    overrides = run_options.overrides | given.pop("overrides", {})
    run_options = replace(run_options, overrides=overrides, **given)
    if on_features is None:
        trainer = trainer_class(plans, options.configuration, fold, folder, device, run_options)
    else:
        trainer = on_features.make_trainer(folder, run_options)
        say_cost(trainer, on_features.num_pairs)
        if options.dry_run:
            return 0
    if options.val:
        checkpoint = folder / (BEST if options.val_best else FINAL)
        trainer.resume(checkpoint, options.allow_changed_data)
        trainer.run_final_validation("validation_best" if options.val_best else "validation")
        say_next("colipri_report", folder, "--pictures")
        return 0
    # before the folder is touched: what cannot be trained leaves no trace
    if existing is not None:
        trainer.resume(existing, options.allow_changed_data)
    else:
        trainer.initialize()
    if options.pretrained_weights and existing is None:
        trainer.load_pretrained_weights(Path(options.pretrained_weights))
    steps = trainer.training_plan.num_epochs * trainer.training_plan.num_iterations_per_epoch
    if options.verify or (steps >= LONG_TRAINING and existing is None):
        trainer.verify_transfer()
    if options.verify:
        return 0
    if is_main:
        prepare_run_folder(folder, options.restart)
    trainer.describe_run()
    if options.c and existing is None:
        logger.info("There is no checkpoint in %s yet: training starts from the beginning", folder)
    try:
        trainer.run_training()
    except TrainingStopped as stopped:
        logger.info("Stopped by %s; the checkpoint is written. Continue with --c", stopped)
        if str(stopped) == "SIGINT":
            raise KeyboardInterrupt from None
        return EXIT_STOPPED
    best = folder / (BEST if (folder / BEST).is_file() else FINAL)
    _say_next(trainer, best, options.dataset)
    return 0


def _say_next(trainer: ColipriTrainer, best: Path, dataset: str) -> None:
    """Evaluate on cases that were not trained on, or transfer an encoder that knows no texts."""
    if not trainer.data.needs_reports:
        say_next("colipri_transfer_to_nnunet", "-d", "NNUNET_DATASET", "-m", best)
        return
    cases = trainer.data.store.manifest["cases"].values()
    if any(case["split"] == "test" for case in cases):
        split = "test"
    elif trainer.data.val_cases:
        split = "val"
    else:  # fold all
        say_next("colipri_report", best.parent, "--pictures")
        return
    command = "colipri_zero_shot" if trainer.plans.findings else "colipri_retrieve"
    say_next(*evaluation_command(command, best, dataset, split))


def _fold(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdigit():
        raise ColipriError(f"fold '{text}': it must be a number (0 to 4) or all")
    return int(text)


def _require_gpus(options: argparse.Namespace) -> None:
    import torch

    if options.device == "mps":
        raise ColipriError("there is one MPS device; omit -num_gpus")
    if options.device == "cuda" and options.num_gpus > torch.cuda.device_count():
        raise ColipriError(
            f"-num_gpus {options.num_gpus}: this machine shows {torch.cuda.device_count()} GPUs"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_train."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(build_parser(), partial(train, arguments=given), given)
