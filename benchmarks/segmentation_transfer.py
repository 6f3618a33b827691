"""Pretrained against from scratch in stock nnU-Net: equal plans, folds, seeds and epochs.

    python benchmarks/segmentation_transfer.py --data DIR -o transfer
    python benchmarks/segmentation_transfer.py --data DIR -o transfer -m CHECKPOINT --merge 901 \\
        --datasets hippocampus tumour colipri_quickstart/raw/Dataset901_SemiSyntheticChest
    python benchmarks/segmentation_transfer.py --data DIR -o transfer --datasets hippocampus \\
        --fractions 0.1 1.0 --folds 2

DIR holds the folders msd_hippocampus_subset (imagesTr, labelsTr) and sts_ct_gtv (images, labels);
--datasets also takes any raw data set of nnU-Net by its folder (Dataset004_Name). Where its
cases.csv names training and test cases, these are the one fold.

Starts that are compared, each with 10, 25 and 100 % of the labels of a fold's training cases:

    scratch     random weights
    images      an encoder pre-trained on the images of the fold's training cases alone, without
                labels; of the validation cases only sizes and intensities enter the plans, as
                always in nnU-Net
    checkpoint  the encoder of -m

All starts of a data set share one plan. Every step is one of the commands that users type, in a
process of its own, with its output in OUT/logs. Killed at any moment and started again, the same
command continues; an interrupted fine-tuning starts over, so the result is that of a run that was
never stopped. OUT/table.md, curves_*.png and results.json are rewritten after every
training.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import sys
from pathlib import Path
from typing import IO

from command_line import run_side_by_side, trainings_at_once
from segmentation_transfer_data import find_sources
from segmentation_transfer_experiment import Experiment
from segmentation_transfer_results import write_results

from colipri.common.atomic import atomic_write_json

FIXED = ("m", "epochs", "iterations", "pretraining_epochs", "pretraining_iterations", "spacing")


def main() -> None:
    """Everything that is missing, then tables and curves."""
    options = _options()
    sources = find_sources(options.datasets, options.data)
    unknown = set(options.merge) - {source.number for source in sources}
    if unknown:
        sys.exit(f"--merge {min(unknown)}: no data set of this number is among --datasets")
    out = Path(options.o).absolute()
    _require_same_experiment(out, options)
    at_once = trainings_at_once(options.np, options.device)
    lock = _lock(out)
    experiments = [Experiment(source, out, options, lock) for source in sources]
    for experiment in experiments:
        experiment.write_data()
    run_side_by_side([e.prepare for e in experiments], at_once, "encoders and plans")
    missing = [
        functools.partial(experiment.train, start, fraction, fold)
        for experiment in experiments
        for fraction in options.fractions
        for fold in range(experiment.folds)
        for start in experiment.starts
        if not experiment.is_trained(start, fraction, fold)
    ]

    def write() -> None:
        write_results(out, [(e.source, e.results()) for e in experiments], vars(options))

    run_side_by_side(missing, at_once, "fine-tuning", write)
    write()
    sys.stdout.write((out / "table.md").read_text(encoding="utf-8"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default=".", metavar="DIR", help="folder of the two data sets (default: .)")
    add("-o", required=True, metavar="OUT", help="folder for everything that is made")
    add(
        "--datasets",
        nargs="+",
        default=["hippocampus", "tumour"],
        help="hippocampus, tumour, or folders of nnU-Net raw data sets (default: the two)",
    )
    add("-m", metavar="CHECKPOINT", help="encoder of the start called checkpoint")
    add(
        "--starts",
        nargs="+",
        choices=("images", "checkpoint"),
        help="beside scratch; the first decides on the plan (default: images, and checkpoint "
        "with -m)",
    )
    add("--fractions", nargs="+", type=float, default=[0.1, 0.25, 1.0], help="of the labels")
    add("--folds", type=int, help="of the cross-validation (default: 2 hippocampus, 3 tumour)")
    add("--epochs", type=int, default=12, help="of fine-tuning (default: %(default)s)")
    add("--iterations", type=int, default=20, help="per epoch (default: %(default)s)")
    add("--pretraining_epochs", type=int, help="default: 20, tumour 16")
    add("--pretraining_iterations", type=int, default=25, help="per epoch (default: %(default)s)")
    add(
        "--merge",
        nargs="+",
        type=int,
        default=[],
        metavar="NUMBER",
        help="data sets whose labels become one: easier than telling them apart",
    )
    add("-device", default="cpu", choices=("cpu", "cuda", "mps"))
    add("-np", type=int, default=2, help="trainings at once on the CPU (default: %(default)s)")
    add("-gpu_memory_target", default="4", metavar="GB", help="default: %(default)s, for a CPU")
    add("--spacing", nargs="+", default=["pretrained"], help="see colipri_transfer_to_nnunet")
    options = parser.parse_args()
    options.starts = options.starts or ["images", *(["checkpoint"] if options.m else [])]
    if not all(0 < fraction <= 1 for fraction in options.fractions):
        parser.error("--fractions must be above 0 and at most 1")
    if options.folds is not None and options.folds < 2:
        parser.error("--folds must be at least 2")
    if options.np < 1:
        parser.error("-np must be at least 1")
    if ("checkpoint" in options.starts) != bool(options.m):
        parser.error("the start checkpoint needs -m CHECKPOINT, and the other way round")
    if options.m and not Path(options.m).exists():
        parser.error(f"there is no {options.m}")
    return options


def _require_same_experiment(out: Path, options: argparse.Namespace) -> None:
    """Cells of one folder must be comparable; data sets and fractions may be added."""
    fixed = {name: getattr(options, name) for name in ("starts", *FIXED)}
    fixed["m"] = options.m and str(Path(options.m).resolve())
    file = out / "experiment.json"
    begun = json.loads(file.read_text()) if file.is_file() else fixed
    differing = [f"{name} {begun.get(name)}" for name in fixed if begun.get(name) != fixed[name]]
    if differing:
        sys.exit(f"{out} was begun with {', '.join(differing)}; choose another -o")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(file, fixed)


def _lock(out: Path) -> IO[str]:
    """Held by this process and by the steps that it runs, which may outlive it after kill -9."""
    file = (out / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("waiting for the end of a step of another run in this folder\n")
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


if __name__ == "__main__":
    main()
